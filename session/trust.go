package session

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"tlsd/internal/kind"
	"tlsd/internal/policy"
)

// A trust is a trust store for clients. It serves the clients that NewClient makes between one
// SetCaBundle and the next. The store exists as soon as the Call of SetCaBundle is made, and is
// settled when that Call has ended. A NewClient in between waits until the store is settled. With
// the option ca, a trust serves one client only (see parseCA).
//
// A store has holders of three sorts. The session is a holder while the store is current. A client
// that was made while the store was current is a holder until its handshake. A store that should
// have replaced this one, but has failed, is a holder, too. The last holder to release the store
// frees it.
type trust struct {
	s       *Session
	settled <-chan struct{} // closed when the store has been loaded, or has failed to load

	// Set before settled is closed, constant afterwards.
	fallback *trust   // the store to use in place of this one; nil: this one has not failed
	bundle   CABundle // nil: the system's store

	refs atomic.Int32 // number of holders

	// mu guards ctx, and is held while the engine makes ctx. This may take long, so mu is never
	// locked under the session's lock.
	mu  sync.Mutex
	ctx EngineContext // nil until load has made it
}

// newTrust makes a store with one holder, the caller.
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

// resolve returns the store that is really used: t, or its fallback. t must be settled.
func (t *trust) resolve() *trust {
	for t.fallback != nil {
		t = t.fallback
	}
	return t
}

// client starts TLS on a TCP connection with this store. It owns nc, and closes nc if it fails. The
// store must be settled, and the caller must be a holder.
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

// prepare makes the engine's context. NewClient calls it, so that a bad store is an error of
// NewClient, and not of the handshake. The store must be settled, and the caller must be a holder.
func (t *trust) prepare() error {
	t = t.resolve()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.load()
}

// load makes the engine's context, if there is none. t.mu must be held.
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

// SetCaBundle reads and checks a PEM file of CA certificates. It makes them the trust store of
// clients that are opened afterwards. If SetCaBundle fails, the old store stays in use. The path
// must be absolute. An empty path means the system's store. The result is 0.
func (s *Session) SetCaBundle(path string) *Call {
	const op = "tls.SetCaBundle"
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.trust
	next := newTrust(s)
	c := s.newCall(op, 0, func(ctx context.Context) (any, error) {
		if err := next.read(op, path); err != nil {
			// The fallback is the resolved store. Otherwise failed stores would form an
			// ever longer chain.
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

// read loads the store from a file, for the method op. Without a path it loads the system's store.
func (t *trust) read(op, path string) error {
	if err := t.s.available(); err != nil {
		return err
	}
	if path != "" {
		open := t.s.within(op, policy.KeyCAFolders, t.s.Policy.CAFolders, path)
		pem, err := readPEM(path, maxBundle, open)
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
