package session

import (
	"cmp"
	"context"
	"net"
	"time"

	"tlsd/internal/kind"
	"tlsd/internal/policy"
)

// serverContext is one context handle: a certificate, its key, and the
// listeners that Accept has opened with them.
type serverContext struct {
	s      *Session
	handle Handle

	// Guarded by s.mu.
	closing   bool
	gone      bool // the call that was to make it failed
	engine    EngineContext
	made      <-chan struct{}      // the making call's end
	bound     time.Duration        // of each Accept that is made from now on; 0: the session's own
	listeners map[string]*listener // by address
}

// NewServerContext loads a certificate chain and its key from PEM files, whose
// paths must be absolute. The result is the context's Handle.
func (s *Session) NewServerContext(certFile, keyFile string) *Call {
	const op = "tls.NewServerContext"
	s.mu.Lock()
	defer s.mu.Unlock()
	h, limit := s.reserve()
	if limit != nil {
		return s.refuse(op, 0, limit)
	}
	c := &serverContext{s: s, handle: h, listeners: map[string]*listener{}}
	call := s.newCall(op, 0, func(ctx context.Context) (any, error) {
		e, err := s.loadServer(certFile, keyFile)
		if err != nil {
			c.unmade()
			return nil, classify(ctx, err, kind.File)
		}
		s.mu.Lock()
		c.engine = e
		s.mu.Unlock()
		return h, nil
	})
	call.makes = h
	call.abandoned = c.unmade
	c.made = call.done
	s.contexts[h] = c
	return call
}

// setAcceptTimeout is SetTimeout on a context handle. s.mu must be held.
func (s *Session) setAcceptTimeout(op string, h Handle, bound time.Duration) *Call {
	c, err := s.context(h)
	if err != nil {
		return s.refuse(op, h, err)
	}
	call := s.newCall(op, h, func(context.Context) (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if c.gone {
			return nil, fail(kind.Handle, "the call that was to make it failed")
		}
		return 0, nil
	}).instant()
	call.after = []<-chan struct{}{c.made}
	c.bound = bound
	return call
}

func (s *Session) loadServer(certFile, keyFile string) (EngineContext, error) {
	if err := s.available(); err != nil {
		return nil, err
	}
	const op, rule = "tls.NewServerContext", policy.KeyKeyFolders
	cert, err := readPEM(certFile, maxCert, s.within(op, rule, s.Policy.KeyFolders, certFile))
	if err != nil {
		return nil, err
	}
	key, err := readPEM(keyFile, maxKey, s.within(op, rule, s.Policy.KeyFolders, keyFile))
	if err != nil {
		return nil, err
	}
	e, err := s.versions(s.Engine.NewServerContext(cert, key))
	clear(key)
	if err != nil {
		return nil, fail(kind.File, "certificate %s, key %s: %v", certFile, keyFile, err)
	}
	return e, nil
}

func (c *serverContext) unmade() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.gone = true
	delete(c.s.contexts, c.handle)
}

// Accept waits for a client at host (an address of this machine) and port
// 1-65535 that has done its handshake. The result is the Handle of its connection. If data is not nil, it becomes the
// connection's data channel; the session owns it from now on.
func (s *Session) Accept(ctxHandle Handle, host string, port int, data *net.UnixConn) *Call {
	call := s.accept(ctxHandle, host, port)
	call.data = data
	return call
}

func (s *Session) accept(ctxHandle Handle, host string, port int) *Call {
	const op = "tls.Accept"
	s.mu.Lock()
	defer s.mu.Unlock()
	h, limit := s.reserve()
	if limit != nil {
		return s.refuse(op, ctxHandle, limit)
	}
	sc, err := s.context(ctxHandle)
	if err != nil {
		return s.refuse(op, ctxHandle, err)
	}
	var (
		c    *connection
		call *Call
	)
	bound := cmp.Or(sc.bound, s.Timeouts.Accept)
	call = s.newCall(op, ctxHandle, func(ctx context.Context) (any, error) {
		ctx, stop := bounded(ctx, bound, "no client has done its handshake")
		defer stop()
		ch, err := call.channel()
		if err != nil {
			c.unmade()
			return nil, err
		}
		t, err := sc.accept(ctx, host, port)
		if err != nil {
			c.unmade()
			return nil, err
		}
		c.made(t, ready, ch)
		call.data = nil
		return h, nil
	})
	call.after = []<-chan struct{}{sc.made}
	c = s.newConnection(h, call, true)
	return call
}

// CloseServerContext stops listening, drops the clients that no Accept has
// claimed, and frees the handle. It takes its turn behind the Accepts that were
// made before it, and ends those that go on waiting. The result is 0.
func (s *Session) CloseServerContext(h Handle) *Call {
	const op = "tls.CloseServerContext"
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.context(h)
	if err != nil {
		return s.refuse(op, h, err)
	}
	c.closing = true
	return s.closeInTurn(op, h, c.close, func() bool { return c.gone })
}

// close frees the context. No Accept may be using it. Clients that were not claimed are closed in an
// orderly way, as far as ctx and the timeout allow.
func (c *serverContext) close(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, c.s.Timeouts.Close)
	defer stop()
	c.s.mu.Lock()
	listeners := c.listeners
	c.listeners = nil
	e := c.engine
	c.engine = nil
	delete(c.s.contexts, c.handle)
	c.s.mu.Unlock()
	for _, l := range listeners {
		l.close(ctx)
	}
	if e != nil {
		e.Free()
	}
	return nil
}
