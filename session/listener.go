package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"tlsd/internal/kind"
)

// listener is one address that a context listens on. It accepts clients from
// the first Accept until the context is closed, does their handshakes side by
// side, and keeps at most Limits.Pending of them, in the handshake or done,
// until an Accept claims them; further clients wait in the kernel's queue.
type listener struct {
	s    *Session
	addr string

	opened chan struct{} // closed when listening has begun or failed
	err    *Error        // why it failed; set before opened is closed

	ln     *net.TCPListener
	engine EngineContext
	ctx    context.Context // ends the handshakes
	stop   context.CancelFunc
	work   sync.WaitGroup

	places chan struct{} // one is taken by each client until it is claimed
	ready  chan arrival  // clients that have done their handshake, or failed; never full
}

type arrival struct {
	conn EngineConn
	err  *Error
}

// accept claims the next client of an address, which it opens at first use.
func (c *serverContext) accept(ctx context.Context, host string, port int) (EngineConn, error) {
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	c.s.mu.Lock()
	if c.gone {
		c.s.mu.Unlock()
		return nil, fail(kind.Handle, "the call that was to make it failed")
	}
	l := c.listeners[addr]
	first := l == nil
	if first {
		l = &listener{s: c.s, addr: addr, engine: c.engine, opened: make(chan struct{})}
		c.listeners[addr] = l
	}
	c.s.mu.Unlock()

	if first {
		if l.err = l.open(ctx); l.err != nil {
			c.s.mu.Lock()
			delete(c.listeners, addr)
			c.s.mu.Unlock()
		}
		close(l.opened)
	}
	select {
	case <-l.opened:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if l.err != nil {
		return nil, l.err
	}
	select {
	case a := <-l.ready:
		<-l.places
		if a.err != nil {
			return nil, a.err
		}
		return a.conn, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *listener) open(ctx context.Context) *Error {
	ctx, cancel := context.WithTimeout(ctx, l.s.Timeouts.Connect)
	defer cancel()
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", l.addr)
	if err != nil {
		e := classify(ctx, err, kind.Connect)
		if e.Kind != kind.Cancelled {
			e.Why = fmt.Sprintf("listen on %s: %s", l.addr, e.Why)
		}
		return e
	}
	l.ln = ln.(*net.TCPListener)
	l.ctx, l.stop = context.WithCancel(l.s.ctx)
	l.places = make(chan struct{}, l.s.Limits.Pending)
	l.ready = make(chan arrival, l.s.Limits.Pending)
	l.work.Add(1)
	go l.serve()
	return nil
}

// serve accepts clients until the listener is closed.
func (l *listener) serve() {
	defer l.work.Done()
	for {
		select {
		case l.places <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		nc, err := l.ln.AcceptTCP()
		if err == nil {
			l.work.Add(1)
			go l.handshake(nc)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// Out of descriptors or memory: an Accept hears of it, and clients wait
		// until it is over.
		e := classify(l.ctx, err, kind.IO)
		e.Why = fmt.Sprintf("accept on %s: %s", l.addr, e.Why)
		l.ready <- arrival{err: e}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-l.ctx.Done():
			return
		}
	}
}

func (l *listener) handshake(nc *net.TCPConn) {
	defer l.work.Done()
	peer := nc.RemoteAddr()
	conn, err := l.engine.Server(nc)
	if err != nil {
		l.ready <- arrival{err: classify(l.ctx, err, kind.Internal)}
		return
	}
	ctx, cancel := context.WithTimeout(l.ctx, l.s.Timeouts.AcceptHandshake)
	defer cancel()
	if err := conn.Handshake(ctx); err != nil {
		conn.Close()
		e := handshakeError(ctx, err, l.s.Timeouts.AcceptHandshake)
		e.Why = fmt.Sprintf("client %s: %s", peer, e.Why)
		l.ready <- arrival{err: e}
		return
	}
	l.ready <- arrival{conn: conn}
}

// close stops listening, ends the handshakes and drops the clients that were
// not claimed. It returns when all of that is done.
func (l *listener) close() {
	<-l.opened
	if l.err != nil {
		return
	}
	l.stop()
	l.ln.Close()
	l.work.Wait()
	close(l.ready)
	for a := range l.ready {
		if a.conn != nil {
			a.conn.Close()
		}
	}
}
