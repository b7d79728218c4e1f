package session

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"tlsd/internal/kind"
	"tlsd/internal/policy"
)

// NewClient connects to host, a name or an address, at port 1-65535. TLS starts with Handshake. The
// result is the connection's Handle.
func (s *Session) NewClient(host string, port int) *Call {
	const op = "tls.NewClient"
	s.mu.Lock()
	defer s.mu.Unlock()
	h, limit := s.reserve()
	if limit != nil {
		return s.refuse(op, 0, limit)
	}
	var c *connection
	store := s.trust.retain()
	to, bad := policy.ParseHost(host)
	timeout := cmp.Or(s.connectTimeout, s.Timeouts.Connect)
	call := s.newCall(op, 0, func(ctx context.Context) (any, error) {
		nc, err := s.connect(ctx, to, bad, port, timeout)
		if err == nil {
			if err = store.prepare(); err != nil {
				nc.Close()
				err = classify(ctx, err, kind.Internal)
			}
		}
		if err != nil {
			store.release()
			c.abandon()
			return nil, err
		}
		c.setOpen(connSetup{tcp: nc, serverName: to.String(), store: store})
		return h, nil
	})
	call.after = []<-chan struct{}{store.settled}
	c = s.newConnection(h, call, false)
	c.peer = net.JoinHostPort(to.String(), strconv.Itoa(port))
	call.onAbandon = func() {
		c.abandon()
		store.release()
	}
	return call
}

// connect connects to a host within the timeout. bad is the error of policy.ParseHost for the host,
// or nil.
func (s *Session) connect(ctx context.Context, to policy.Host, bad error, port int,
	timeout time.Duration) (*net.TCPConn, error) {
	if err := s.available(); err != nil {
		return nil, err
	}
	if bad != nil {
		return nil, fail(kind.Params, "%v", bad)
	}
	ctx, stop := withTimeout(ctx, timeout, "no connection")
	defer stop()
	nc, err := s.dial(ctx, to, port)
	if err != nil {
		e := classify(ctx, err, kind.Connect)
		if e.Kind != kind.Cancelled && e.Kind != kind.Denied {
			target := net.JoinHostPort(to.String(), strconv.Itoa(port))
			e.Why = fmt.Sprintf("connect to %s: %s", target, e.Why)
		}
		return nil, e
	}
	return nc.(*net.TCPConn), nil
}
