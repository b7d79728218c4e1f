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

// The bytes of a connection without a data channel. The calls Read and Write carry them.

// MaxRead is the most that one Read returns, in bytes, even if the caller asks for more. The next
// Read returns the rest.
const MaxRead = 32 << 10

// writePiece is the size of the pieces of a Write, in bytes. Each piece must be sent within the
// timeout. So a slow but steady peer causes no timeout, however large the Write is. A peer that
// takes only a byte now and again does cause a timeout.
const writePiece = pieceBytes

// usableWithoutChannel does what the method usable does, and also fails if there is a data channel.
func (c *connection) usableWithoutChannel() (EngineConn, error) {
	t, err := c.usable()
	if err != nil {
		return nil, err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.pumps != nil {
		return nil, fail(kind.State,
			"it has a data channel; send and receive the bytes there")
	}
	return t, nil
}

// Write sends all of data, on a connection without a data channel. The caller must not change data
// until the call has ended. The result is len(data).
func (s *Session) Write(h Handle, data []byte) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	timeout := s.timeoutOf(h, s.Timeouts.Write)
	run := func(ctx context.Context, c *connection) (any, error) {
		t, err := c.usableWithoutChannel()
		if err == nil {
			err = c.writable()
		}
		if err != nil || len(data) == 0 {
			return 0, err
		}
		return len(data), c.write(ctx, t, data, timeout)
	}
	return s.onConnection(opWrite, h, writeLane, run)
}

// write sends all of data. An error fails the outgoing direction, with one exception: if a timeout
// or a cancel ends the write before the engine has encrypted any of the bytes, the direction stays
// open, and the next Write can succeed.
func (c *connection) write(ctx context.Context, t EngineConn, data []byte,
	timeout time.Duration) error {
	for sent := 0; sent < len(data); {
		piece := data[sent:min(sent+writePiece, len(data))]
		n, broken, err := writeWithin(ctx, t, piece, timeout)
		sent += n
		e := event{sent: n}
		if err != nil {
			if err.Kind == kind.Timeout {
				err.Why += fmt.Sprintf("; %d of %d were sent", sent, len(data))
			}
			if sent > 0 || broken {
				e.write, e.err, e.reported = stateFailed, err, true
			}
		}
		if c.flow.change(e); err != nil {
			return err
		}
	}
	return nil
}

// gaveUp says whether err is a timeout or a cancel, and not a failure of the network.
func gaveUp(err *Error) bool {
	return err.Errno == "" && (err.Kind == kind.Timeout || err.Kind == kind.Cancelled)
}

// writable says why nothing can be sent any more, or returns nil.
func (c *connection) writable() error {
	st := c.flow.status()
	switch {
	case st.Write == stateShut:
		return fail(kind.State,
			"close_notify has been sent (tls.Shutdown), so nothing can follow")
	case st.Write != stateFailed:
		return nil
	case gaveUp(st.WriteError):
		return fail(kind.State,
			"an earlier Write was cut short, so nothing can follow it; "+
				"only tls.Read and tls.Close are possible")
	}
	_, _ = c.flow.reportWriteError()
	return st.WriteError
}

// writeWithin writes a piece within the timeout. After an error, broken says that no later Write
// can succeed.
func writeWithin(ctx context.Context, t EngineConn, piece []byte, timeout time.Duration) (
	n int, broken bool, failure *Error) {
	ctx, stop := withTimeout(ctx, timeout,
		fmt.Sprintf("the peer has not taken %d bytes", len(piece)))
	defer stop()
	n, err := t.Write(ctx, piece)
	if err == nil {
		return n, false, nil
	}
	failure = classify(ctx, err, kind.IO)
	return n, !gaveUp(failure) || errors.Is(err, openssl.ErrWriteBroken), failure
}

// Recycle takes back data that a Read has returned. The data must not be used any more. Calling
// Recycle is optional.
func Recycle(data []byte) { openssl.Recycle(data) }

// Read waits for data on a connection without a data channel. It returns what is there, at most max
// bytes. The data is empty if the peer has sent close_notify. A Read that times out loses nothing.
func (s *Session) Read(h Handle, max int) *Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	run := func(ctx context.Context, c *connection) (any, error) {
		t, err := c.usableWithoutChannel()
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
	}
	call := s.onConnection(opRead, h, readLane, run)
	// The timeout also covers the wait for an earlier Read, which may have no timeout itself.
	timeout := s.timeoutOf(h, s.Timeouts.Read)
	call.startTimeout = func(ctx context.Context) (context.Context, context.CancelFunc) {
		return withTimeout(ctx, timeout, "no data")
	}
	return call
}
