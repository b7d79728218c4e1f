package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"tlsd/internal/kind"
	"tlsd/openssl"
)

// The bytes of a connection without a data channel. A Read or a Write carries them.

// MaxRead is the most that one Read returns, in bytes, however much was
// asked for: what is there is given, and more can be asked for again.
const MaxRead = 32 << 10

// writePiece is how much of a Write must leave within its bound, in bytes. What is larger is
// written in such pieces; so a peer that takes data slowly is not taken for one that takes none,
// and one that takes a byte now and then is.
const writePiece = pieceBytes

// plain is usable for a call that carries bytes itself.
func (c *connection) plain() (EngineConn, error) {
	t, err := c.usable()
	if err != nil {
		return nil, err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.pumps != nil {
		return nil, fail(kind.State, "it has a data channel, over which its bytes go")
	}
	return t, nil
}

// Write sends all of data, at most 16 MiB, on a connection without a data channel. It uses data
// until it has ended. The result is len(data).
func (s *Session) Write(h Handle, data []byte) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	bound := s.timeoutOf(h, s.Timeouts.Write)
	return s.onConnection(opWrite, h, writeLane, func(ctx context.Context, c *connection) (any, error) {
		t, err := c.plain()
		if err == nil {
			err = c.writable()
		}
		if err != nil || len(data) == 0 {
			return 0, err
		}
		return len(data), c.write(ctx, t, data, bound)
	})
}

// write sends all of data. If it is cut short, the outgoing direction fails, unless nothing has
// left: then another Write may follow.
func (c *connection) write(ctx context.Context, t EngineConn, data []byte, bound time.Duration) error {
	for sent := 0; sent < len(data); {
		n, err := writeWithin(ctx, t, data[sent:min(sent+writePiece, len(data))], bound)
		sent += n
		e := event{sent: n}
		if err != nil {
			if err.Kind == kind.Timeout {
				err.Why += fmt.Sprintf("; %d of %d have left", sent, len(data))
			}
			if sent > 0 || !gaveUp(err) {
				e.write, e.err, e.reported = stateFailed, err, true
			}
		}
		if c.flow.change(e); err != nil {
			return err
		}
	}
	return nil
}

// gaveUp says whether an error comes from this side's patience, and not from the network.
func gaveUp(err *Error) bool { return err.Kind == kind.Timeout || err.Kind == kind.Cancelled }

// writable says why nothing can be sent any more, if so.
func (c *connection) writable() error {
	st := c.flow.status()
	switch {
	case st.Write == stateShut:
		return fail(kind.State, "close_notify has been sent (tls.Shutdown), so nothing can follow")
	case st.Write != stateFailed:
		return nil
	case gaveUp(st.WriteError):
		return fail(kind.State, "an earlier Write was cut short, so nothing can follow it; "+
			"only tls.Read and tls.Close are possible")
	}
	_, _ = c.flow.reportWriteError()
	return st.WriteError
}

// writeWithin writes a piece within its bound.
func writeWithin(ctx context.Context, t EngineConn, piece []byte, bound time.Duration) (int, *Error) {
	ctx, stop := withTimeout(ctx, bound, fmt.Sprintf("the peer has not taken %d bytes", len(piece)))
	defer stop()
	n, err := t.Write(ctx, piece)
	if err != nil {
		return n, classify(ctx, err, kind.IO)
	}
	return n, nil
}

// Recycle takes back the data that a Read has returned, which nobody may use any more. It need not
// be called.
func Recycle(data []byte) { openssl.Recycle(data) }

// Read waits for data on a connection without a data channel and returns what is there, at most max
// bytes; none if the peer has sent close_notify. A Read that ends with kind "timeout" has lost
// nothing.
func (s *Session) Read(h Handle, max int) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := s.onConnection(opRead, h, readLane, func(ctx context.Context, c *connection) (any, error) {
		t, err := c.plain()
		if err != nil {
			return nil, err
		}
		data, err := c.readSome(ctx, t, min(max, MaxRead))
		e := event{received: len(data), reported: true}
		if err != nil {
			e, _ = readEnd(ctx, err)
			e.reported = true
		}
		c.flow.change(e)
		switch {
		case errors.Is(err, io.EOF):
			return []byte{}, nil
		case err != nil:
			return nil, classify(ctx, err, kind.IO)
		}
		return data, nil
	})
	// The wait for an earlier Read counts: that one may have no bound.
	timeout := s.timeoutOf(h, s.Timeouts.Read)
	call.startTimeout = func(ctx context.Context) (context.Context, context.CancelFunc) {
		return withTimeout(ctx, timeout, "no data")
	}
	return call
}
