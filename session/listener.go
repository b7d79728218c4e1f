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

// A listener is one address where a context listens. The first Accept or Listen for the address
// opens the listener. Until the context is closed, the listener accepts clients, and does their
// handshakes side by side. It keeps at most Limits.Pending clients that no Accept has claimed.
// Clients whose handshake still runs count, too. Further clients wait in the kernel's backlog.
type listener struct {
	s    *Session
	addr string

	opened chan struct{} // closed when listening has begun or failed
	err    *Error        // why listening has failed; set before opened is closed

	context *serverContext
	ln      *net.TCPListener
	ctx     context.Context // done when the listener is closed; then the handshakes end
	stop    context.CancelFunc
	work    sync.WaitGroup

	// One element for each client that counts for Limits.Pending. serve puts the element in
	// before it calls accept(2).
	slots        chan struct{}
	arrived      chan arrival // clients that no Accept has claimed; a send never blocks
	acceptErrors chan *Error  // why accept(2) fails, for an Accept that waits
}

// An arrival is a client for an Accept. One of three fields is set: conn after the handshake, tcp
// if the handshake comes later (see the option handshake), or err if the handshake has failed.
type arrival struct {
	conn          EngineConn
	local, remote string // addresses of conn
	tcp           *net.TCPConn
	err           *Error
}

// accept waits for the next client of an address, and claims it. With host "" and port 0, the
// client may be of any listener of the context.
func (c *serverContext) accept(ctx context.Context, host string, port int) (arrival, error) {
	if host == "" && port == 0 {
		return c.acceptAny(ctx)
	}
	l, err := c.listener(ctx, opAccept, net.JoinHostPort(host, strconv.Itoa(port)))
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

// claim gives the client's slot back, and returns the client or its error.
func (l *listener) claim(a arrival) (arrival, error) {
	<-l.slots
	l.context.clientsChanged()
	if a.err != nil {
		return arrival{}, a.err
	}
	return a, nil
}

// listener returns the listener of an address. If there is none, it opens one. op is the name of
// the call, for audit events.
func (c *serverContext) listener(ctx context.Context, op, addr string) (*listener, error) {
	for {
		c.s.mu.Lock()
		if c.abandoned {
			c.s.mu.Unlock()
			return nil, fail(kind.Handle, neverMadeText)
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
			if l.err = l.open(ctx, op); l.err != nil {
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
		// Another call tried to open the listener, and was cancelled or timed out. So this
		// call tries now.
	}
}

func (l *listener) open(ctx context.Context, op string) *Error {
	ctx, cancel := withTimeout(ctx, l.s.Timeouts.Connect, "no address")
	defer cancel()
	ln, err := l.s.listen(ctx, op, l.addr)
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
		// Probably the process lacks descriptors or memory. A waiting Accept gets the
		// error, and the clients wait in the backlog while the lack lasts.
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

// serveClient does the handshake of a client. If the handshake comes later, it delivers the client
// at once.
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
		<-l.slots // Accepts never see the client
		return
	}
	l.deliver(a)
}

// deliver gives a client to the Accepts. The send does not block, because arrived has room for all
// clients with a slot.
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
		e := l.s.judgeHandshake(opAccept, peer, err, classify(ctx, err, kind.Handshake))
		l.s.reportHandshake(Handshake{Server: true, Peer: peer, Failure: e, Skipped: skip},
			began, conn)
		e.Why = fmt.Sprintf("client %s: %s", peer, e.Why)
		return arrival{err: e}
	}
	l.s.reportHandshake(Handshake{Server: true, Peer: peer}, began, conn)
	a.conn = conn
	return a
}

// close stops listening and ends the handshakes. Then it closes the clients that no Accept has
// claimed, all at the same time, and waits until they are closed.
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

// network is "tcp4" for an IPv4 address, and otherwise "tcp". With "tcp" and 0.0.0.0, Go would
// listen on all IPv6 addresses, too.
func network(addr string) string {
	if a, err := netip.ParseAddrPort(addr); err == nil && a.Addr().Is4() {
		return "tcp4"
	}
	return "tcp"
}
