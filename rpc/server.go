package rpc

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"tlsd/rpc/wire"
	"tlsd/session"
)

// begin makes a call of the session, in the order of arrival, and sees to it
// that it is run and answered. It does not wait.
func (s *server) begin(c *call) {
	m := methods[c.method]
	if m == nil {
		s.answer(c, nil, &protocolError{wire.CodeMethodNotFound, fmt.Sprintf("method %q not found; rpc.discover lists all", clip([]byte(c.method)))})
		return
	}
	args, err := m.admit(s, c)
	if err != nil {
		if m.makes {
			s.sess.SkipHandle()
		}
		s.answer(c, nil, err)
		return
	}
	if m.direct != nil {
		v, err := m.direct(s, c, args)
		if err != nil {
			err = m.failed(err)
		}
		s.answer(c, v, err)
		return
	}
	c.handle = m.named(args)
	s.launch(c, m.call(s.sess, args))
}

// admit decodes the parameters of a call, and says why it cannot be carried out.
func (m *method) admit(s *server, c *call) (args, error) {
	if c.refuse != nil {
		return nil, m.failed(c.refuse)
	}
	args, err := c.args, error(nil)
	if args == nil {
		args, err = m.decode(c)
	}
	if err != nil {
		return nil, err
	}
	c.params, c.args, c.raw = nil, nil, nil
	if m.direct != nil {
		return args, nil
	}
	if n := s.sess.Limits.Calls; s.sess.Busy() >= n {
		return nil, m.failed(overLimit("%d calls are in flight, the limit of a session (--max-calls); wait for answers", n))
	}
	if err := s.hold(c, m.keeps(c, args)); err != nil {
		return nil, m.failed(err)
	}
	return args, nil
}

// launch runs the session's side of a call and answers it: here if it does not
// wait, else in a goroutine.
func (s *server) launch(c *call, sc *session.Call) {
	if !sc.Waits() {
		s.Watcher.Calling(c.method, c.handle)
		v, err := sc.Run()
		s.mu.Lock()
		s.watchAnother()
		s.mu.Unlock()
		s.reply(c, v, err)
		return
	}
	c.cancel = sc.Cancel
	s.mu.Lock()
	s.calls[c] = struct{}{}
	s.Watcher.Calling(c.method, c.handle)
	s.mu.Unlock()
	s.answers.Add(1)
	go func() {
		defer s.answers.Done()
		v, err := sc.Run()
		s.mu.Lock()
		if delete(s.calls, c); len(s.calls) == 0 {
			s.freed = time.Now()
		}
		s.watchAnother()
		s.mu.Unlock()
		s.reply(c, v, err)
		if data, ok := v.([]byte); ok {
			session.Recycle(data) // it has been written, or copied
		}
	}()
}

// watchAnother tells the watcher of some call that is in flight. s.mu must be held.
func (s *server) watchAnother() {
	for c := range s.calls {
		s.Watcher.Calling(c.method, c.handle)
		return
	}
	s.Watcher.Calling("", 0)
}

// cancel ends the calls in flight that have this id.
func (s *server) cancel(id json.RawMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.calls {
		if c.hasID(id) {
			c.cancel()
		}
	}
}

// refuse answers a message that is not a request, with id null.
func (s *server) refuse(err error, b *batch) {
	s.answer(&call{id: json.RawMessage("null"), batch: b}, nil, err)
}

// answer is reply for calls that the session knows nothing of: their errors
// become its last error here.
func (s *server) answer(c *call, v any, err error) {
	if err != nil {
		s.sess.Fail(err)
	}
	s.reply(c, v, err)
}

// reply writes the answer of a call: v, or the error. A failure to write ends the
// connection.
func (s *server) reply(c *call, v any, err error) {
	s.letGo(c)
	if c.joined != nil {
		for _, w := range c.joined {
			s.reply(&call{id: w.id}, w.n, err)
		}
		return
	}
	if c.id == nil {
		return
	}
	var raw []byte
	out := make([]byte, 0, 128)
	out = append(out, `{"jsonrpc":"2.0","id":`...)
	out = append(out, c.id...)
	blob, isBlob := v.([]byte)
	switch {
	case err != nil:
		out = append(append(out, `,"error":`...), encode(wireError(err))...)
	case isBlob && s.rawAnswers(c):
		raw = blob
		out = append(out, `,"result":null,"raw":`...)
		out = strconv.AppendInt(out, int64(len(blob)), 10)
	case isBlob:
		out = append(out, `,"result":"`...)
		out = base64.StdEncoding.AppendEncode(out, blob)
		out = append(out, '"')
	default:
		out = appendValue(append(out, `,"result":`...), v)
	}
	out = append(out, '}')
	if c.batch != nil {
		s.batchDone(c.batch, out)
		return
	}
	if c.moves {
		s.written(s.w.WriteAndMoveTo(out, s.rings.Load(), s.conn))
		return
	}
	s.write(out, raw)
}

func (s *server) rawAnswers(c *call) bool { return c.batch == nil && s.raw.Load() }

func (s *server) write(msg, raw []byte) {
	s.written(s.w.Write(msg, raw))
}

// later is write for the reading goroutine, which flushes before it waits.
func (s *server) later(msg, raw []byte) {
	s.written(s.w.Later(msg, raw))
}

// flushEvery is after how many bytes moved the answers that were kept go out, though there is more to do.
const flushEvery = 128 << 10

// flush sends the answers that later has kept.
func (s *server) flush() {
	s.unflushed = 0
	s.written(s.w.Flush())
}

// written ends the connection if a write has failed.
func (s *server) written(err error) {
	if err == nil {
		return
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.deaf.Store(true)
	}
	s.hangUp() // the reading goroutine ends the session
}

// appendValue appends a result in JSON.
func appendValue(out []byte, v any) []byte {
	switch v := v.(type) {
	case int:
		return strconv.AppendInt(out, int64(v), 10)
	case session.Handle:
		return strconv.AppendInt(out, int64(v), 10)
	}
	return append(out, encode(v)...)
}

// encode is json.Marshal without HTML's escapes, for the people who read it.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // results and errors are types of ours
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// batch collects the answers of a batch until all are there.
type batch struct {
	mu      sync.Mutex // guards all
	left    int        // answers that are missing
	held    int        // bytes that are kept for it
	answers [][]byte
}

func (b *batch) add() {
	b.mu.Lock()
	b.left++
	b.mu.Unlock()
}

// keep notes bytes that are to be counted out when the batch is complete.
func (b *batch) keep(n int) {
	b.mu.Lock()
	b.held += n
	b.mu.Unlock()
}

// batchDone adds an answer (nil: none, only one less is missing) and writes the
// batch's answer if it was the last.
func (s *server) batchDone(b *batch, answer []byte) {
	b.mu.Lock()
	b.left--
	if answer != nil {
		b.answers = append(b.answers, answer)
	}
	complete := b.left == 0
	if complete {
		s.held.Add(-int64(b.held))
	}
	b.mu.Unlock()
	if complete && len(b.answers) > 0 {
		out := append([]byte("["), bytes.Join(b.answers, []byte(","))...)
		s.write(append(out, ']'), nil)
	}
}
