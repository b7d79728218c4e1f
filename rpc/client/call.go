package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/kind"
	"tlsd/rpc/wire"
)

// Call calls any method. The argument params is a slice, a map or a struct, which encoding/json
// encodes. If params is nil, the request has no parameters. encoding/json decodes the answer into
// result. If result is nil, the answer is dropped. A blob is a []byte, as a parameter and as a
// result.
func (c *Client) Call(ctx context.Context, method string, params, result any) error {
	value, err := c.exchange(ctx, method, params, nil)
	if err != nil || result == nil {
		return err
	}
	return decode(method, value, result)
}

// decode decodes the result of a call.
func decode(method string, value json.RawMessage, result any) error {
	if err := json.Unmarshal(value, result); err != nil {
		return fmt.Errorf("%s: tlsd has answered with another type than expected: %w",
			method, err)
	}
	return nil
}

// exchange sends a call, and waits for the answer. If f is not nil, the descriptor of f goes with
// the call. An error of exchange is always an *Error.
func (c *Client) exchange(ctx context.Context, method string, params any, f *os.File) (
	json.RawMessage, error) {
	a := c.roundTrip(ctx, method, params, f)
	if a.err == nil {
		return a.result, nil
	}
	err := a.err.forMethod(method)
	if ctx.Err() != nil && (err.Kind == kind.Cancelled || err.Kind == kind.Lost) {
		err.cause = errors.Join(err.cause, ctx.Err())
	}
	return nil, err
}

func (c *Client) roundTrip(ctx context.Context, method string, params any, f *os.File) answer {
	id, ch, lost := c.register()
	if lost != nil {
		return answer{err: lost}
	}
	msg, err := request(id, method, params)
	if err != nil {
		c.unregister(id)
		return failedAnswer(kind.Params, err, "%v", err)
	}
	switch sent, err := c.send(ctx, msg, f); {
	case !sent && err != nil:
		c.unregister(id)
		return failedAnswer(kind.Cancelled, err, "cancelled before it was sent: %v", err)
	case err != nil:
		c.disconnect(fmt.Errorf("send to tlsd: %w", err))
		return <-ch // the function read() ends soon, and then fails all calls
	}
	select {
	case a := <-ch:
		return a
	case <-ctx.Done():
		return c.cancel(ctx, id, ch)
	}
}

// request makes the message of a call.
func request(id uint64, method string, params any) ([]byte, error) {
	req := wire.Request{JSONRPC: "2.0", ID: strconv.AppendUint(nil, id, 10), Method: method}
	if params != nil {
		p, err := json.Marshal(params)
		if err != nil {
			return nil, fmt.Errorf("parameters: %w", err)
		}
		req.Params = p
	}
	msg, err := json.Marshal(req)
	if err == nil && len(msg) > wire.MaxLine {
		err = fmt.Errorf("the message has %d bytes; at most %d are possible",
			len(msg), wire.MaxLine)
	}
	return msg, err
}

// register takes the next id, and returns it with the Go channel for the answer. The channel gets
// exactly one answer: tlsd's, or an error when the connection ends. After unregister it gets none.
// If the session is lost already, register returns only the error.
func (c *Client) register() (uint64, <-chan answer, *Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, c.err
	}
	c.lastID++
	ch := make(chan answer, 1)
	c.waiters[c.lastID] = ch
	return c.lastID, ch, nil
}

func (c *Client) unregister(id uint64) {
	c.mu.Lock()
	delete(c.waiters, id)
	c.mu.Unlock()
}

func failedAnswer(k Kind, cause error, format string, args ...any) answer {
	return answer{err: newError(k, cause, format, args...)}
}

// cancel asks tlsd to end the call, and waits for the answer to the call. If no answer comes within
// cancelTimeout, cancel ends the session.
func (c *Client) cancel(ctx context.Context, id uint64, ch <-chan answer) answer {
	bounded, stop := context.WithTimeout(context.WithoutCancel(ctx), c.cancelTimeout)
	defer stop()
	note := fmt.Appendf(nil, `{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":%d}}`, id)
	_, err := c.send(bounded, note, nil)
	if err == nil {
		select {
		case a := <-ch:
			return a
		case <-bounded.Done():
		}
	}
	c.disconnect(fmt.Errorf("tlsd did not answer within %v after a call was cancelled",
		c.cancelTimeout))
	c.conn.Close()
	return <-ch
}

// send writes one message. The results:
//
//   - true, nil: the message was written.
//   - true, an error: a part of it may have been written, so the stream is broken.
//   - false, an error: nothing was written, because ctx has ended. The error is ctx's.
//   - false, nil: nothing was written, because the session is lost.
//
// While tlsd does not take the whole message, send waits. After the end of ctx it waits for
// cancelTimeout more. Then it returns true and an error.
func (c *Client) send(ctx context.Context, msg []byte, f *os.File) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	select {
	case c.sendLock <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	case <-c.done:
		return false, nil // the reader has failed the call already
	}
	defer func() { <-c.sendLock }()

	deadlineSet := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(deadlineSet)
		c.conn.SetWriteDeadline(time.Now().Add(c.cancelTimeout))
	})
	err := c.write(append(msg, '\n'), f)
	if !stop() {
		<-deadlineSet
		c.conn.SetWriteDeadline(time.Time{}) // the deadline was for this message only
	}
	return true, err
}

// write sends a line. If f is not nil, the descriptor of f goes with the first byte.
func (c *Client) write(line []byte, f *os.File) error {
	if f != nil {
		rc, err := f.SyscallConn()
		if err != nil {
			return err
		}
		var n int
		if failed := rc.Control(func(fd uintptr) {
			n, _, err = c.conn.(*net.UnixConn).WriteMsgUnix(line,
				unix.UnixRights(int(fd)), nil)
		}); failed != nil {
			return failed
		}
		if err != nil {
			return err
		}
		line = line[n:]
	}
	_, err := c.conn.Write(line)
	return err
}
