package session

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"tlsd/internal/kind"
	"tlsd/internal/policy"
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
	fallback *trust   // the store that stays because this one could not be had
	bundle   CABundle // nil: the system's

	refs atomic.Int32 // how many hold it

	mu  sync.Mutex    // guards ctx; held while the engine makes it, so never under the session's lock
	ctx EngineContext // made at first use
}

// newTrust makes a store that its maker holds.
func newTrust(s *Session) *trust {
	t := &trust{s: s}
	t.refs.Store(1)
	return t
}

func (t *trust) retain() *trust {
	t.refs.Add(1)
	return t
}

func (t *trust) release() {
	if t.refs.Add(-1) > 0 {
		return
	}
	if t.ctx != nil {
		t.ctx.Free()
		t.ctx = nil
	}
	if t.fallback != nil {
		t.fallback.release()
	}
}

// real is the store that t stands for. t must be settled.
func (t *trust) resolve() *trust {
	for t.fallback != nil {
		t = t.fallback
	}
	return t
}

// client starts TLS on a TCP connection with this store. It owns nc, also when
// it fails. The store must be settled and held.
func (t *trust) client(nc *net.TCPConn, host string) (EngineConn, error) {
	t = t.resolve()
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.load(); err != nil {
		nc.Close()
		return nil, err
	}
	return t.ctx.Client(nc, host)
}

// prepare makes the engine's context, so that a client which cannot have it learns so early. The
// store must be settled and held.
func (t *trust) prepare() error {
	t = t.resolve()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.load()
}

// load makes the engine's context. t.mu must be held.
func (t *trust) load() error {
	if t.ctx != nil {
		return nil
	}
	ctx, err := t.s.versions(t.s.Engine.NewClientContext(t.bundle))
	if err == nil {
		t.ctx = ctx
	}
	return err
}

// SetCaBundle reads and checks a PEM file of CA certificates and makes it the trust store of the
// clients that are opened afterwards. If that fails, the old store stays. The path must be
// absolute; without one, the system's store comes back. The result is 0.
func (s *Session) SetCaBundle(path string) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.trust
	next := newTrust(s)
	c := s.newCall("tls.SetCaBundle", 0, func(ctx context.Context) (any, error) {
		if err := next.read(path); err != nil {
			// Not before itself, or failed stores would pile up behind one another.
			next.fallback = before.resolve().retain()
			before.release()
			return nil, classify(ctx, err, kind.File)
		}
		before.release()
		return 0, nil
	})
	c.onAbandon = func() { next.fallback = before }
	c.after = []<-chan struct{}{before.settled}
	next.settled = c.done
	s.trust = next
	return c
}

// read loads the store from a file, or the system's if there is none.
func (t *trust) read(path string) error {
	if err := t.s.available(); err != nil {
		return err
	}
	if path != "" {
		pem, err := readPEM(path, maxBundle, t.s.within("tls.SetCaBundle", policy.KeyCAFolders, t.s.Policy.CAFolders, path))
		if err != nil {
			return err
		}
		if t.bundle, err = t.s.Engine.ParseCABundle(path, pem); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.load()
}
