package session

import (
	"context"
	"net"
	"reflect"
	"strconv"

	"tlsd/internal/kind"
)

// A context may listen on several addresses. The first Accept with an address begins to listen
// there. Listen also begins to listen, and can take any free port. Accept without an address takes
// clients from all addresses.

const opListen = "tls.Listen"

// Listen binds an address of this machine, and keeps its clients for later Accepts. Port 0 is any
// free port. The result is the port.
func (s *Session) Listen(ctxHandle Handle, host string, port int) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	listen := func(ctx context.Context, c *serverContext) (any, error) {
		if port == 0 {
			return c.listenAnywhere(ctx, host)
		}
		l, err := c.listener(ctx, opListen, net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return nil, err
		}
		return l.port(), nil
	}
	return s.onContext(opListen, ctxHandle, listen)
}

// onContext makes a call that changes a context. The call waits for earlier calls that change the
// context. s.mu must be held.
func (s *Session) onContext(op string, h Handle,
	run func(context.Context, *serverContext) (any, error)) *Call {
	c, err := s.context(h)
	if err != nil {
		return s.refuse(op, h, err)
	}
	call := s.newCall(op, h, func(ctx context.Context) (any, error) {
		s.mu.Lock()
		gone := c.abandoned
		s.mu.Unlock()
		if gone {
			return nil, fail(kind.Handle, neverMadeText)
		}
		return run(ctx, c)
	})
	call.after = []<-chan struct{}{c.controlTail}
	call.tail = &c.controlTail
	*call.tail = call.done
	return call
}

func (c *serverContext) newListener(addr string) *listener {
	return &listener{s: c.s, addr: addr, context: c, opened: make(chan struct{})}
}

// notifyListenersChanged wakes the Accepts that wait for clients of all listeners, after a listener
// was added. s.mu must be held.
func (c *serverContext) notifyListenersChanged() {
	close(c.listenersChanged)
	c.listenersChanged = make(chan struct{})
}

// listenAnywhere listens on a free port.
func (c *serverContext) listenAnywhere(ctx context.Context, host string) (any, error) {
	l := c.newListener(net.JoinHostPort(host, "0"))
	if err := l.open(ctx, opListen); err != nil {
		return nil, err
	}
	close(l.opened)
	c.s.mu.Lock()
	full := c.checkListenerLimit()
	if full == nil {
		c.listeners[net.JoinHostPort(host, strconv.Itoa(l.port()))] = l
		c.notifyListenersChanged()
	}
	c.s.mu.Unlock()
	if full != nil {
		l.close(ctx)
		return nil, full
	}
	c.clientsChanged()
	return l.port(), nil
}

// maxListeners is the most listeners that a context may have. Each costs a socket, and room for
// waiting clients.
const maxListeners = 64

// checkListenerLimit fails if the context has maxListeners. s.mu must be held.
func (c *serverContext) checkListenerLimit() error {
	if len(c.listeners) >= maxListeners {
		return fail(kind.Limit,
			"the context listens on %d addresses, the limit of a context; "+
				"use another context",
			len(c.listeners))
	}
	return nil
}

func (l *listener) port() int { return l.ln.Addr().(*net.TCPAddr).Port }

// acceptAny claims the next client of any listener of the context.
func (c *serverContext) acceptAny(ctx context.Context) (arrival, error) {
	for {
		list, more := c.listening()
		if len(list) == 0 {
			return arrival{}, fail(kind.State, "the context does not listen; "+
				"call tls.Listen first, or give a host and a port")
		}
		cases := []reflect.SelectCase{receiveCase(ctx.Done()), receiveCase(more)}
		for _, l := range list {
			cases = append(cases, receiveCase(l.arrived), receiveCase(l.acceptErrors))
		}
		chosen, value, _ := reflect.Select(cases)
		switch {
		case chosen == 0:
			return arrival{}, context.Cause(ctx)
		case chosen == 1:
			continue
		case chosen%2 == 1:
			return arrival{}, value.Interface().(*Error)
		}
		return list[chosen/2-1].claim(value.Interface().(arrival))
	}
}

func receiveCase(ch any) reflect.SelectCase {
	return reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ch)}
}

// listening returns the listeners that have begun to listen, and a Go channel that is closed when a
// listener is added.
func (c *serverContext) listening() (list []*listener, more <-chan struct{}) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for _, l := range c.listeners {
		select {
		case <-l.opened:
			if l.err == nil {
				list = append(list, l)
			}
		default: // an Accept or a Listen is opening it
		}
	}
	return list, c.listenersChanged
}
