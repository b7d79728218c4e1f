// Package client calls tlsd, the daemon that owns TLS connections for its callers.
//
//	c, err := client.Dial(ctx, "/run/tlsd.sock")
//	if err != nil { … }
//	defer c.Close()
//	h, err := c.NewClient(ctx, "example.com", 443)
//	…
//	err = c.Handshake(ctx, h)
//
// # Promises
//
//   - A [Client] is one session. [Client.Close], or the end of the process, frees all that the
//     session owns.
//   - Many goroutines may call the methods at once. The client sends the calls one after another.
//     proto.md, section 3, says in which order tlsd runs them.
//   - If the context of a call ends, the client cancels the call in tlsd, and waits two seconds for
//     tlsd's answer. Usually the answer is an error of kind "cancelled". If the call ended before
//     the cancellation came, the answer is the call's result or error. The method returns the
//     answer. If none comes, the client ends the session, because the state of the call is unknown.
//   - The errors in tlsd's answers have the type *[Error]. If a call is cancelled, or if the
//     connection ends, the error of the call has this type, too.
//   - After the end of the connection every call fails, usually with kind "lost". Such a client
//     cannot connect again; [Dial] a new one.
//   - If tlsd sends a line that is longer than the protocol allows, the session ends. So tlsd
//     cannot fill this process's memory.
//   - [Client.Read] and [Client.Write] carry data as base64 in JSON. Programs that move much data
//     should use the net.Conn that [Client.HandshakeConn] and [Client.AcceptConn] return.
//
// A Client has one goroutine of its own, which reads. Close waits for it.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"tlsd/internal/kind"
	"tlsd/rpc/wire"
)

const (
	dialTimeout   = 10 * time.Second // the most time for connect and tls.Hello together
	cancelTimeout = 2 * time.Second  // the wait for an answer after a cancellation
	reasonTimeout = time.Second      // the wait for tlsd's own reason; see disconnect
)

// A Client is a session of tlsd.
type Client struct {
	conn          net.Conn
	sendLock      chan struct{} // a lock: has an element while a message is written
	done          chan struct{} // closed when the reader has ended
	cancelTimeout time.Duration // the constant of this name; tests set another value
	peer          Peer

	mu      sync.Mutex // guards the rest
	lastID  uint64
	waiters map[uint64]chan answer // calls that wait for an answer; nil when done is closed
	cause   error                  // why this side has ended the connection; nil if it has not
	err     *Error                 // why all calls fail; nil while the connection lives
}

// An answer is the end of a call. One of the two fields is set.
type answer struct {
	result json.RawMessage
	err    *Error
}

// Dial connects to the socket at path and greets tlsd. It gives up after 10 s, or when ctx ends. If
// tlsd has not answered the greeting then, Dial waits two seconds more. The errors:
//
//   - An error of connect(2) satisfies errors.Is with fs.ErrNotExist, fs.ErrPermission or
//     syscall.ECONNREFUSED (no process listens).
//   - A *[StrangerError]: the socket belongs to a user who is not trusted.
//   - An *[Error] of kind "denied": the daemon does not admit this user.
//   - [ErrVersion]: the daemon and this package have no version of the protocol in common.
func Dial(ctx context.Context, path string) (*Client, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%s: has %d bytes; the path of a socket can have at most %d",
			path, len(path), maxSocketPath)
	}
	if dir := privateDir(); filepath.Dir(path) == dir {
		if err := checkPrivateDir(dir); err != nil {
			return nil, err
		}
	}
	bounded, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := connect(bounded, path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	peer, err := peerOf(conn)
	if err == nil {
		err = peer.checkTrusted(path, os.Geteuid(), ReadConf)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	c := New(conn)
	c.peer = peer
	if _, err := c.Hello(bounded); err != nil {
		c.Close()
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return nil, fmt.Errorf("%s: tlsd has not answered within %v; is it "+
				"stopped, or the machine very busy? %w", path, dialTimeout, err)
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// unwrapNet returns the system's error inside an error of package net. Dial writes the path of the
// socket before the error. The text of the error of package net has the path already, but the text
// of the system's error does not.
func unwrapNet(err error) error {
	var (
		op *net.OpError
		sc *os.SyscallError
	)
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	if errors.As(err, &sc) {
		err = sc.Err
	}
	return err
}

// New makes a client that uses conn, and owns conn. Unlike Dial, New sends nothing.
func New(conn net.Conn) *Client {
	c := &Client{
		conn:          conn,
		sendLock:      make(chan struct{}, 1),
		done:          make(chan struct{}),
		cancelTimeout: cancelTimeout,
		waiters:       make(map[uint64]chan answer),
	}
	go c.read()
	return c
}

// Close ends the session, and waits until nothing of the client runs any more. Calls that wait fail
// with kind "lost". Close may be called more than once, and always returns nil. Connections with
// peers are cut without close_notify, unless [Client.CloseConn] was called before.
func (c *Client) Close() error {
	c.disconnect(net.ErrClosed)
	c.conn.Close()
	<-c.done
	return nil
}

// disconnect stores why this side ends the connection. tlsd may have sent its own reason. So the
// goroutine that runs read() still reads, for at most reasonTimeout.
func (c *Client) disconnect(cause error) {
	c.mu.Lock()
	if c.cause == nil {
		c.cause = cause
	}
	c.mu.Unlock()
	c.conn.SetReadDeadline(time.Now().Add(reasonTimeout))
}

// read hands out answers until the connection ends. Then it fails all calls.
func (c *Client) read() {
	defer close(c.done)
	err := c.readAnswers()
	c.conn.Close()

	c.mu.Lock()
	var refused *Error
	switch {
	case errors.As(err, &refused): // tlsd has said why
	case c.cause != nil:
		err = c.cause
	case err == io.EOF:
		err = errors.New("tlsd has closed the connection")
	}
	if refused == nil {
		why := err.Error()
		if err == net.ErrClosed {
			why = "the client has been closed"
		}
		refused = newError(kind.Lost, err, "the session is lost: %s", why)
	}
	c.err = refused
	waiting := c.waiters
	c.waiters = nil
	c.mu.Unlock()
	for _, ch := range waiting {
		ch <- answer{err: refused}
	}
}

// readAnswers hands out answers until the connection ends, and returns why. If tlsd sends an error
// with the id null, the error is about the whole session. readAnswers returns it, as an *Error.
func (c *Client) readAnswers() error {
	r := wire.NewReader(c.conn, wire.MaxLine)
	for {
		line, err := r.Line()
		if err != nil {
			return err
		}
		id, a, err := parse(line)
		if err != nil {
			return err
		}
		c.mu.Lock()
		ch, ok := c.waiters[id]
		delete(c.waiters, id)
		c.mu.Unlock()
		if !ok {
			return fmt.Errorf("tlsd has answered call %d, which is not in flight", id)
		}
		ch <- a // the channel has room for one answer, and a call gets one
	}
}

// parse decodes one answer.
func parse(line []byte) (id uint64, a answer, err error) {
	var m wire.Response
	if err := json.Unmarshal(line, &m); err != nil {
		return 0, a, fmt.Errorf("tlsd has sent a line that is no answer: %w", err)
	}
	if m.JSONRPC != "2.0" || (m.Result == nil) == (m.Error == nil) {
		return 0, a, errors.New("tlsd has sent a line that is no JSON-RPC 2.0 answer")
	}
	if m.Error != nil {
		a.err = fromWire(m.Error)
		if string(m.ID) == "null" {
			return 0, a, a.err
		}
	}
	if id, err = strconv.ParseUint(string(m.ID), 10, 64); err != nil {
		return 0, a, fmt.Errorf("tlsd has answered the id %.40q, which no call has", m.ID)
	}
	a.result = m.Result
	return id, a, nil
}
