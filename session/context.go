package session

import (
	"cmp"
	"context"
	"net"
	"sync"
	"time"

	"tlsd/internal/kind"
)

// A serverContext is one context handle: a certificate, its key, and the listeners.
type serverContext struct {
	s      *Session
	handle Handle

	// Guarded by s.mu.
	closing          bool
	abandoned        bool                 // NewServerContext has failed
	created          <-chan struct{}      // Call.done of NewServerContext
	controlTail      <-chan struct{}      // Call.done of the newest call of onContext
	timeout          time.Duration        // for later Accepts; 0: Timeouts.Accept
	listeners        map[string]*listener // by address
	listenersChanged chan struct{}        // closed and replaced when a listener is added
	options          serverOptions
	signal           *signal       // nil until the caller has sent its pair
	lastLook         time.Time     // when refresh last checked the files
	shown            []Certificate // the certificates that the meter counts for this context

	// changeMu is held while the options change. Its holder may read files and make an engine
	// context, but does not wait for a peer or a caller.
	changeMu   sync.Mutex
	lack       bool // the last refresh lacked descriptors or memory; guarded by changeMu
	toldOfLack bool // the observer was told of the lack; guarded by changeMu

	// engineMu guards engine and freed. The read lock is held while the engine makes a
	// connection. This may take long, so engineMu is never locked under the session's lock.
	engineMu sync.RWMutex
	engine   EngineContext
	freed    bool // replaceEngine(nil) has been called, and engine stays nil
}

// NewServerContext loads a certificate chain and its key from PEM files. The paths must be
// absolute. The result is the context's Handle.
func (s *Session) NewServerContext(certFile, keyFile string) *Call {
	const op = "tls.NewServerContext"
	s.mu.Lock()
	defer s.mu.Unlock()
	h, limit := s.reserve()
	if limit != nil {
		return s.refuse(op, 0, limit)
	}
	c := &serverContext{s: s, handle: h, listeners: map[string]*listener{},
		listenersChanged: make(chan struct{}),
		options: serverOptions{skip: s.SkipFailedHandshakes,
			reload: s.ReloadCertificates}}
	call := s.newCall(op, 0, func(ctx context.Context) (any, error) {
		if err := c.load(ctx, certFile, keyFile); err != nil {
			c.abandon()
			return nil, classify(ctx, err, kind.File)
		}
		return h, nil
	})
	call.makes = h
	call.onAbandon = c.abandon
	c.created, c.controlTail = call.done, call.done
	call.tail = &c.controlTail
	s.contexts[h] = c
	s.count()
	return call
}

// setAcceptTimeout is SetTimeout on a context handle. s.mu must be held.
func (s *Session) setAcceptTimeout(op string, h Handle, timeout time.Duration) *Call {
	c, err := s.context(h)
	if err != nil {
		return s.refuse(op, h, err)
	}
	call := s.newCall(op, h, func(context.Context) (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if c.abandoned {
			return nil, fail(kind.Handle, neverMadeText)
		}
		return 0, nil
	}).instant()
	call.after = []<-chan struct{}{c.created}
	c.timeout = timeout
	return call
}

func (c *serverContext) abandon() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.abandoned = true
	delete(c.s.contexts, c.handle)
	delete(c.s.watched, c.handle)
	c.s.count()
}

// Accept waits for a client. The host is an address of this machine, and the port is 1-65535. With
// host "" and port 0, Accept waits at all addresses where the context listens. Accept gives a
// client only after the client's handshake, unless the option handshake is "later". The result is
// the Handle of the client's connection. If data is not nil, it becomes the connection's data
// channel, and the session owns it from now on.
func (s *Session) Accept(ctxHandle Handle, host string, port int, data *net.UnixConn) *Call {
	call := s.accept(ctxHandle, host, port)
	call.data = data
	return call
}

const opAccept = "tls.Accept"

func (s *Session) accept(ctxHandle Handle, host string, port int) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, limit := s.reserve()
	if limit != nil {
		return s.refuse(opAccept, ctxHandle, limit)
	}
	sc, err := s.context(ctxHandle)
	if err == nil && (host == "") != (port == 0) {
		err = fail(kind.Params,
			"host %q, port %d: give both, or give neither to accept at all addresses "+
				"of the context",
			host, port)
	}
	if err != nil {
		return s.refuse(opAccept, ctxHandle, err)
	}
	var (
		c    *connection
		call *Call
	)
	timeout := cmp.Or(sc.timeout, s.Timeouts.Accept)
	call = s.newCall(opAccept, ctxHandle, func(ctx context.Context) (any, error) {
		ctx, stop := withTimeout(ctx, timeout, "no client has done its handshake")
		defer stop()
		ch, err := call.channel()
		if err != nil {
			c.abandon()
			return nil, err
		}
		a, err := sc.accept(ctx, host, port)
		if err != nil {
			c.abandon()
			return nil, err
		}
		c.accept(a, sc, ch)
		call.data = nil
		return h, nil
	})
	call.after = []<-chan struct{}{sc.controlTail}
	c = s.newConnection(h, call, true)
	return call
}

// CloseServerContext waits for earlier calls on the handle. If none of them ends within
// stallTimeout, CloseServerContext cancels those that still wait. Then it stops listening, closes
// the clients that no Accept has claimed, and frees the handle. The result is 0.
func (s *Session) CloseServerContext(h Handle) *Call {
	const op = "tls.CloseServerContext"
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.context(h)
	if err != nil {
		return s.refuse(op, h, err)
	}
	c.closing = true
	return s.closeAfterEarlier(op, h, c.close, func() bool { return c.abandoned })
}

// close frees the context. All Accepts on the context must have ended. Clients that no Accept has
// claimed get close_notify, if ctx and Timeouts.Close leave time for it.
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
	c.replaceEngine(nil)
	return nil
}

// replaceEngine replaces the engine's context, for handshakes from now on. Handshakes that have
// begun keep the old context. Once replaceEngine(nil) has been called, every later call only frees
// its parameter e.
func (c *serverContext) replaceEngine(e EngineContext) {
	c.engineMu.Lock()
	old := c.engine
	if c.freed {
		old = e
	} else {
		c.engine, c.freed = e, e == nil
	}
	c.engineMu.Unlock()
	if old != nil {
		old.Free()
	}
}

// newServer puts TLS on an accepted TCP connection. It owns nc, and closes nc if it fails.
func (c *serverContext) newServer(nc *net.TCPConn) (EngineConn, error) {
	c.refresh()
	c.engineMu.RLock()
	defer c.engineMu.RUnlock()
	if c.engine == nil {
		nc.Close()
		return nil, fail(kind.Handle,
			"the server context that accepted the connection is closed")
	}
	return c.engine.Server(nc)
}

// accept makes c the connection of the client that the call Accept has claimed.
func (c *connection) accept(a arrival, sc *serverContext, ch *channel) {
	if a.conn == nil {
		c.setOpen(connSetup{tcp: a.tcp, server: sc, data: ch})
		return
	}
	c.local, c.remote = a.local, a.remote
	c.setReady(a.conn, ch)
}
