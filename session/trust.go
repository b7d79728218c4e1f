package session

import (
	"context"
	"net"
	"sync"

	"tlsd/internal/kind"
)

// trust is the trust store of the clients that are opened from one SetCaBundle
// to the next. It exists from the moment the call is made and is settled when
// the call ends; clients that are opened in between wait for that.
//
// A store is held by the session while it is the current one, by the NewClients
// that were made meanwhile, and by the store that was to replace it and failed.
// The last one to let go frees it.
type trust struct {
	s       *Session
	settled <-chan struct{} // closed when it is known whether the store could be had

	// Set before settled is closed, constant afterwards.
	instead *trust   // the store that stays because this one could not be had
	bundle  CABundle // nil: the system's

	mu    sync.Mutex    // guards what follows; held for no longer than the engine needs
	holds int           // how many hold it
	ctx   EngineContext // made at first use
}

func (t *trust) hold() *trust {
	t.mu.Lock()
	t.holds++
	t.mu.Unlock()
	return t
}

func (t *trust) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.holds--
	if t.holds > 0 {
		return
	}
	if t.ctx != nil {
		t.ctx.Free()
		t.ctx = nil
	}
	if t.instead != nil {
		t.instead.release()
	}
}

// client starts TLS on a TCP connection with this store. It owns nc, also when
// it fails. The store must be settled and held.
func (t *trust) client(nc *net.TCPConn, host string) (EngineConn, error) {
	for t.instead != nil {
		t = t.instead
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.load(); err != nil {
		nc.Close()
		return nil, err
	}
	return t.ctx.Client(nc, host)
}

// load makes the engine's context. t.mu must be held.
func (t *trust) load() error {
	if t.ctx != nil {
		return nil
	}
	ctx, err := t.s.Engine.NewClientContext(t.bundle)
	if err == nil {
		t.ctx = ctx
	}
	return err
}

// SetCaBundle reads and checks a PEM file of CA certificates and makes it the
// trust store of the clients that are opened afterwards. If that fails, the old
// store stays. The path must be absolute. The result is 0.
func (s *Session) SetCaBundle(path string) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.trust
	next := &trust{s: s, holds: 1}
	c := s.newCall("tls.SetCaBundle", 0, func(ctx context.Context) (any, error) {
		if err := next.read(path); err != nil {
			next.instead = before
			return nil, classify(ctx, err, kind.File)
		}
		before.release()
		return 0, nil
	})
	c.abandoned = func() { next.instead = before }
	c.after = []<-chan struct{}{before.settled}
	next.settled = c.done
	s.trust = next
	return c
}

// read loads the store from a file.
func (t *trust) read(path string) error {
	if err := t.s.available(); err != nil {
		return err
	}
	pem, err := readPEM(path, maxBundle)
	if err != nil {
		return err
	}
	if t.bundle, err = t.s.Engine.ParseCABundle(path, pem); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.load()
}
