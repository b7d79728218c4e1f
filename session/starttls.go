package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"tlsd/internal/kind"
)

// Protocols with STARTTLS exchange plain text before the handshake. Nothing is read ahead: bytes
// that ReadPlain does not return stay in the system's socket. If a client has used ReadPlain or
// WritePlain, and its socket has bytes that nobody has read, its handshake fails (see checkUnread).

// ReadPlain waits for bytes of a connection before its handshake. It returns what is there, at most
// max bytes. The data is empty if the peer has ended its direction.
func (s *Session) ReadPlain(h Handle, max int) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	timeout := s.timeoutOf(h, s.Timeouts.Read)
	run := func(ctx context.Context, c *connection) (any, error) {
		ctx, stop := withTimeout(ctx, timeout, "no data")
		defer stop()
		buf := make([]byte, min(max, MaxRead))
		n, err := c.inPlain(ctx, func(nc *net.TCPConn) (int, error) {
			return nc.Read(buf)
		})
		if errors.Is(err, io.EOF) {
			err = nil
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
	return s.onConnection("tls.ReadPlain", h, controlLane, run)
}

// WritePlain sends all of data before the handshake. The result is len(data).
func (s *Session) WritePlain(h Handle, data []byte) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	timeout := s.timeoutOf(h, s.Timeouts.Write)
	run := func(ctx context.Context, c *connection) (any, error) {
		ctx, stop := withTimeout(ctx, timeout,
			fmt.Sprintf("the peer has not taken %d bytes", len(data)))
		defer stop()
		n, err := c.inPlain(ctx, func(nc *net.TCPConn) (int, error) {
			return nc.Write(data)
		})
		if err != nil {
			return nil, err
		}
		return n, nil
	}
	return s.onConnection("tls.WritePlain", h, controlLane, run)
}

// inPlain runs the function move, which reads or writes plain text, and interrupts it when ctx
// ends.
func (c *connection) inPlain(ctx context.Context,
	move func(*net.TCPConn) (int, error)) (int, error) {
	c.s.mu.Lock()
	err := c.checkBeforeHandshake()
	nc := c.setup.tcp
	c.setup.plainUsed = true
	c.s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		nc.SetDeadline(time.Unix(1, 0))
		close(over)
	})
	n, err := move(nc)
	if !stop() {
		// The deadline is set, or is being set. It must not end later reads and writes.
		<-over
		nc.SetDeadline(time.Time{})
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = classify(ctx, err, kind.IO)
	}
	return n, err
}
