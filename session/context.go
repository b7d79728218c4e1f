package session

import (
	"cmp"
	"context"
	"net"
	"sync"
	"time"

	"tlsd/internal/kind"
)

// serverContext is one context handle: a certificate, its key, and the
// listeners that Accept has opened with them.
type serverContext struct {
	s      *Session
	handle Handle

	// Guarded by s.mu.
	closing   bool
	gone      bool                 // the call that was to make it failed
	made      <-chan struct{}      // the making call's end
	ctl       <-chan struct{}      // the end of the last call that changes it
	bound     time.Duration        // of each Accept that is made from now on; 0: the session's own
	listeners map[string]*listener // by address; nil when the context is closed
	more      chan struct{}        // closed and replaced when there is another listener
	options   serverOptions
	signal    *signal       // nil until the caller has sent its pair
	looked    time.Time     // when refresh has looked at the files
	shown     []Certificate // that the meter knows of

	changing sync.Mutex // held by who changes the options, and while files are read for that; never by a call that waits

	swap   sync.RWMutex // guards engine; held shared while a connection is made from it, so never under the session's lock
	engine EngineContext
	over   bool // guarded by swap: there will be no other engine
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
	c := &serverContext{s: s, handle: h, listeners: map[string]*listener{}, more: make(chan struct{}), options: serverOptions{skip: s.SkipFailedHandshakes, reload: s.ReloadCertificates}}
	call := s.newCall(op, 0, func(ctx context.Context) (any, error) {
		if err := c.load(ctx, certFile, keyFile); err != nil {
			c.unmade()
			return nil, classify(ctx, err, kind.File)
		}
		return h, nil
	})
	call.makes = h
	call.abandoned = c.unmade
	c.made, c.ctl = call.done, call.done
	call.lane = &c.ctl
	s.contexts[h] = c
	s.count()
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

func (c *serverContext) unmade() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.gone = true
	delete(c.s.contexts, c.handle)
	delete(c.s.watched, c.handle)
	c.s.count()
}

// Accept waits for a client at host (an address of this machine) and port 1-65535 that has done its
// handshake. The result is the Handle of its connection. If data is not nil, it becomes the
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
	if err == nil && (host == "") != (port == 0) {
		err = fail(kind.Params, "host %q, port %d: give both, or neither for all places where the context listens", host, port)
	}
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
		a, err := sc.accept(ctx, host, port)
		if err != nil {
			c.unmade()
			return nil, err
		}
		c.accept(a, sc, ch)
		call.data = nil
		return h, nil
	})
	call.after = []<-chan struct{}{sc.ctl}
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

// close frees the context. No Accept may be using it. Clients that were not claimed are closed in
// an orderly way, as far as ctx and the timeout allow.
func (c *serverContext) close(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, c.s.Timeouts.Close)
	defer stop()
	c.s.mu.Lock()
	listeners := c.listeners
	c.shows(nil)
	c.listeners = nil
	delete(c.s.contexts, c.handle)
	delete(c.s.watched, c.handle)
	c.s.count()
	c.s.mu.Unlock()
	for _, l := range listeners {
		l.close(ctx)
	}
	c.signal.close()
	c.use(nil)
	return nil
}

// use replaces the engine's context, for handshakes from now on. Those that have begun go on with
// the old one. Nil is the last one.
func (c *serverContext) use(e EngineContext) {
	c.swap.Lock()
	old := c.engine
	if c.over {
		old = e
	} else {
		c.engine, c.over = e, e == nil
	}
	c.swap.Unlock()
	if old != nil {
		old.Free()
	}
}

// newServer makes a server's connection, which owns nc, also when it fails.
func (c *serverContext) newServer(nc *net.TCPConn) (EngineConn, error) {
	c.refresh()
	c.swap.RLock()
	defer c.swap.RUnlock()
	if c.engine == nil {
		nc.Close()
		return nil, fail(kind.Handle, "the server context that accepted the connection is closed")
	}
	return c.engine.Server(nc)
}

// accept makes the connection of a client that was claimed.
func (c *connection) accept(a arrival, sc *serverContext, ch *channel) {
	if a.conn == nil {
		c.opened(beginning{tcp: a.tcp, server: sc, data: ch})
		return
	}
	c.local, c.remote = a.local, a.remote
	c.made(a.conn, ch)
}
