package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
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

	context *serverContext
	ln      *net.TCPListener
	ctx     context.Context // ends the handshakes
	stop    context.CancelFunc
	work    sync.WaitGroup

	slots        chan struct{} // one is taken by each client until it is claimed
	arrived      chan arrival  // clients that have done their handshake, or failed; never full
	acceptErrors chan *Error   // why no client can be taken, for an Accept that waits
}

// An arrival is a client: its connection after the handshake, or before it if that comes later, or
// why it failed.
type arrival struct {
	conn          EngineConn
	local, remote string // addresses of conn
	tcp           *net.TCPConn
	err           *Error
}

// accept claims the next client of an address, or, without an address, of all that the context
// listens on.
func (c *serverContext) accept(ctx context.Context, host string, port int) (arrival, error) {
	if host == "" && port == 0 {
		return c.acceptAny(ctx)
	}
	l, err := c.listener(ctx, net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return arrival{}, err
	}
	select {
	case a := <-l.arrived:
		return l.claim(a)
	case e := <-l.acceptErrors:
		return arrival{}, e
	case <-ctx.Done():
		return arrival{}, context.Cause(ctx)
	}
}

// claim takes a client that has arrived.
func (l *listener) claim(a arrival) (arrival, error) {
	<-l.slots
	l.context.clientsChanged()
	if a.err != nil {
		return arrival{}, a.err
	}
	return a, nil
}

// listener returns the listener of an address, which it opens at first use.
func (c *serverContext) listener(ctx context.Context, addr string) (*listener, error) {
	for {
		c.s.mu.Lock()
		if c.abandoned {
			c.s.mu.Unlock()
			return nil, fail(kind.Handle, "the call that was to make it failed")
		}
		l := c.listeners[addr]
		first := l == nil
		if first {
			if err := c.checkListenerLimit(); err != nil {
				c.s.mu.Unlock()
				return nil, err
			}
			l = c.newListener(addr)
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
			if l.err == nil {
				c.s.mu.Lock()
				c.notifyListenersChanged()
				c.s.mu.Unlock()
				c.clientsChanged()
			}
		}
		select {
		case <-l.opened:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		switch {
		case l.err == nil:
			return l, nil
		case first || l.err.Kind != kind.Cancelled && l.err.Kind != kind.Timeout:
			return nil, l.err
		}
		// The Accept that was to open it has ended early. This one has not.
	}
}

func (l *listener) open(ctx context.Context) *Error {
	ctx, cancel := withTimeout(ctx, l.s.Timeouts.Connect, "no address")
	defer cancel()
	ln, err := l.s.listen(ctx, l.addr)
	if err != nil {
		e := classify(ctx, err, kind.Connect)
		if e.Kind != kind.Cancelled && e.Kind != kind.Denied {
			e.Why = fmt.Sprintf("listen on %s: %s", l.addr, e.Why)
		}
		return e
	}
	l.ln = ln.(*net.TCPListener)
	l.ctx, l.stop = context.WithCancel(l.s.ctx)
	l.slots = make(chan struct{}, l.s.Limits.Pending)
	l.arrived = make(chan arrival, l.s.Limits.Pending)
	l.acceptErrors = make(chan *Error)
	l.work.Add(1)
	go l.serve()
	return nil
}

// serve accepts clients until the listener is closed.
func (l *listener) serve() {
	defer l.work.Done()
	for {
		select {
		case l.slots <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		nc, err := l.ln.AcceptTCP()
		if err == nil {
			l.work.Add(1)
			go l.serveClient(nc)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// Out of descriptors or memory: an Accept that waits hears of it, and
		// clients wait until it is over.
		<-l.slots
		e := classify(l.ctx, err, kind.IO)
		e.Why = fmt.Sprintf("accept on %s: %s", l.addr, e.Why)
		pause := time.NewTimer(100 * time.Millisecond)
		select {
		case l.acceptErrors <- e:
		case <-pause.C:
			continue
		case <-l.ctx.Done():
			return
		}
		select {
		case <-pause.C:
		case <-l.ctx.Done():
			return
		}
	}
}

// welcome does the handshake of a client, unless it comes later.
func (l *listener) serveClient(nc *net.TCPConn) {
	defer l.work.Done()
	l.s.mu.Lock()
	later, skip := l.context.options.later, l.context.options.skip
	l.s.mu.Unlock()
	if later {
		l.deliver(arrival{tcp: nc})
		return
	}
	a := l.handshake(nc, skip)
	if a.err != nil && skip {
		<-l.slots // it was never there
		return
	}
	l.deliver(a)
}

// arrive gives a client to the Accepts. There is room for it.
func (l *listener) deliver(a arrival) {
	l.arrived <- a
	l.context.clientsChanged()
}

func (l *listener) handshake(nc *net.TCPConn, skip bool) arrival {
	peer := nc.RemoteAddr().String()
	a := arrival{local: nc.LocalAddr().String(), remote: peer}
	conn, err := l.context.newServer(nc)
	if err != nil {
		return arrival{err: classify(l.ctx, err, kind.Internal)}
	}
	ctx, cancel := withTimeout(l.ctx, l.s.Timeouts.AcceptHandshake, noHandshake)
	defer cancel()
	began := time.Now()
	if err := conn.Handshake(ctx); err != nil {
		conn.Abort()
		e := l.s.judgeHandshake("tls.Accept", peer, err, classify(ctx, err, kind.Handshake))
		l.s.reportHandshake(Handshake{Server: true, Peer: peer, Failure: e, Skipped: skip}, began, conn)
		e.Why = fmt.Sprintf("client %s: %s", peer, e.Why)
		return arrival{err: e}
	}
	l.s.reportHandshake(Handshake{Server: true, Peer: peer}, began, conn)
	a.conn = conn
	return a
}

// close stops listening, ends the handshakes and drops the clients that were
// not claimed, all at the same time. It returns when all of that is done.
func (l *listener) close(ctx context.Context) {
	<-l.opened
	if l.err != nil {
		return
	}
	l.stop()
	l.ln.Close()
	l.work.Wait()
	close(l.arrived)
	for a := range l.arrived {
		if a.conn != nil {
			l.work.Go(func() { a.conn.CloseContext(ctx) })
		}
		if a.tcp != nil {
			a.tcp.Close()
		}
	}
	l.work.Wait()
}

// network keeps an IPv4 address to IPv4: with "tcp", Go takes 0.0.0.0 for all
// addresses, those of IPv6 too.
func network(addr string) string {
	if a, err := netip.ParseAddrPort(addr); err == nil && a.Addr().Is4() {
		return "tcp4"
	}
	return "tcp"
}
