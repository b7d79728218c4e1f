package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/sourcegraph/jsonrpc2"

	"tlsd/rpc/wire"
	"tlsd/session"
)

// Handle begins a call. Package jsonrpc2 calls Handle on its reading goroutine, in the order in
// which the calls arrive. If a call may wait, it runs on a goroutine of its own, and Handle returns
// at once. Handle answers all other calls itself.
func (s *server) Handle(_ context.Context, lib *jsonrpc2.Conn, req *jsonrpc2.Request) {
	c := s.callByNumber(req.ID.Num)
	c.lib = lib
	m := methods[req.Method]
	if m == nil {
		s.refuseCall(c, &protocolError{wire.CodeMethodNotFound,
			fmt.Sprintf("method %q not found; rpc.discover lists all",
				clip([]byte(req.Method)))})
		return
	}
	var params json.RawMessage
	if req.Params != nil {
		params = *req.Params
	}
	args, err := m.admit(s, c, params)
	if err != nil {
		if m.makes {
			s.sess.SkipHandle()
		}
		s.refuseCall(c, err)
		return
	}
	if !m.isDirect(args) {
		s.start(c, m, args, m.call(s.sess, args))
		return
	}
	v, err := m.direct(s, args)
	if err != nil {
		s.refuseCall(c, m.withMethod(err))
		return
	}
	s.reply(c, v, nil)
}

// admit decodes the parameters of a call, reserves room for the call, and takes the sockets that
// came with it. The error says why the call cannot be carried out.
func (m *method) admit(s *server, c *call, params json.RawMessage) (args, error) {
	if c.refusal != nil {
		return nil, m.withMethod(c.refusal)
	}
	if c.repeated != "" && m.index(c.repeated) >= 0 {
		return nil, m.paramError("%s: is given twice", c.repeated)
	}
	args, err := m.decode(params)
	if err != nil || m.isDirect(args) {
		return args, err
	}
	if n := s.sess.Limits.Calls; s.sess.Busy() >= n {
		return nil, m.withMethod(overLimit("%d calls are in flight, the limit of "+
			"a session (--max-calls); wait for answers", n))
	}
	if err := s.reserveBuffer(c, m.bufferNeed(c, args)); err != nil {
		return nil, m.withMethod(err)
	}
	return args, m.attach(s, c, args)
}

// attach replaces the value 1 of the parameter "channel" with the socket that came with the call.
// If m.pair is set, attach replaces the value with the two sockets that came.
func (m *method) attach(s *server, c *call, a args) error {
	i := m.index(pChannel.name)
	if i < 0 || a[i] != int64(1) {
		return nil
	}
	if c.batch != nil {
		return m.paramError("channel: is not possible inside a batch")
	}
	ch, err := s.descriptors.channel()
	if err != nil {
		return m.withMethod(err)
	}
	if !m.pair {
		a[i] = ch
		return nil
	}
	second, err := s.descriptors.channel()
	if err != nil {
		ch.Close()
		return m.withMethod(err)
	}
	a[i] = [2]*net.UnixConn{ch, second}
	return nil
}

// start runs sc, the session's part of the call c, and answers c with the result. If sc may wait,
// start makes a goroutine that does this, and returns at once.
func (s *server) start(c *call, m *method, a args, sc *session.Call) {
	handle := m.handleOf(a)
	if !sc.Waits() {
		s.Watcher.Calling(m.name, handle)
		v, err := sc.Run()
		s.mu.Lock()
		s.watchNext()
		s.mu.Unlock()
		s.reply(c, v, err)
		return
	}
	s.mu.Lock()
	c.op, c.handle, c.cancel = m.name, handle, sc.Cancel
	s.Watcher.Calling(c.op, c.handle)
	s.mu.Unlock()
	s.answers.Add(1)
	go func() {
		defer s.answers.Done()
		v, err := sc.Run()
		s.mu.Lock()
		c.cancel = nil
		s.watchNext()
		s.mu.Unlock()
		s.reply(c, v, err)
		if data, ok := v.([]byte); ok {
			session.Recycle(data) // the answer has a copy
		}
	}()
}

// refuseCall answers a call with an error. The session does not get the call, but it stores the
// error for tls.LastError.
func (s *server) refuseCall(c *call, err error) {
	s.sess.Fail(err)
	s.reply(c, nil, err)
}

// reply answers a call with v or the error. If the answer cannot be written, the connection ends
// (see server.write).
func (s *server) reply(c *call, v any, err error) {
	id := jsonrpc2.ID{Num: c.number}
	if err == nil {
		switch x := v.(type) {
		case session.Status:
			v = wireStatus(x)
		case session.Facts: // JSON in a string: tls.Info of a handle is a string
			v = string(encode(x))
		}
		c.lib.Reply(context.Background(), id, v)
		return
	}
	e := wireError(err)
	data := json.RawMessage(encode(e.Data))
	c.lib.ReplyWithError(context.Background(), id,
		&jsonrpc2.Error{Code: int64(e.Code), Message: e.Message, Data: &data})
}

// register adds a call to the calls in flight.
func (s *server) register(c *call) {
	s.mu.Lock()
	s.calls[c.number] = c
	s.mu.Unlock()
}

// callByNumber returns the call in flight with the number, or nil.
func (s *server) callByNumber(n uint64) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[n]
}

// unregister is called when a call is about to be answered. It removes the call from the calls in
// flight, releases the bytes that are kept for the call, and returns the call. The result is nil if
// no call has the number n.
func (s *server) unregister(n uint64) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.calls[n]
	if c == nil {
		return nil
	}
	if delete(s.calls, n); len(s.calls) == 0 {
		s.lastAnswered = time.Now()
	}
	s.releaseBuffer(c)
	return c
}

// watchNext gives the watcher the method and the handle of a call that still runs. If no call runs,
// it gives "" and 0. The caller holds s.mu.
func (s *server) watchNext() {
	for _, c := range s.calls {
		if c.cancel != nil {
			s.Watcher.Calling(c.op, c.handle)
			return
		}
	}
	s.Watcher.Calling("", 0)
}

// cancel cancels the calls in flight that have the id.
func (s *server) cancel(id json.RawMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		if c.cancel != nil && c.id != nil && sameID(c.id, id) {
			c.cancel()
		}
	}
}

// write sends a message. A failure ends the connection, and so the session.
func (s *server) write(msg []byte) error {
	err := s.w.Write(msg)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.answerTimedOut.Store(true)
	}
	if err != nil {
		s.hangUp()
	}
	return err
}

// encode is json.Marshal, but does not escape <, > and &. So people can read these characters.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // results and errors always encode
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
