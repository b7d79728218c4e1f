package rpc

import (
	"bytes"
	"encoding/base64"
	"fmt"

	"tlsd/internal/kind"
	"tlsd/rpc/wire"
	"tlsd/session"
)

// Limits bound what one session may send. Zero means the default.
type Limits struct {
	Message  int // bytes of a message; wire.MaxLine
	Nesting  int // arrays and objects inside of one another in a message; 64
	Buffered int // bytes of requests, and of a batch's answers, that are kept at the same time; 64 MiB
}

// WithDefaults replaces zeros by the defaults.
func (l Limits) WithDefaults() Limits {
	def := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	def(&l.Message, wire.MaxLine)
	def(&l.Nesting, 64)
	def(&l.Buffered, 64<<20)
	return l
}

func overLimit(format string, a ...any) *session.Error {
	return &session.Error{Kind: kind.Limit, Why: fmt.Sprintf(format, a...)}
}

// shallow gives a message without what is nested deeper than most, for which a 0 is put, and says
// whether there was such. What is left out is not checked to be JSON.
func shallow(msg []byte, most int) (short []byte, deep bool) {
	if bytes.Count(msg, []byte("["))+bytes.Count(msg, []byte("{")) <= most {
		return msg, false // by far the most, and nearly for nothing
	}
	depth, from := 0, 0
	for i := 0; i < len(msg); i++ {
		switch msg[i] {
		case '"':
			i = stringEnd(msg, i)
		case '[', '{':
			if depth++; depth == most+1 {
				short, deep = append(append(short, msg[from:i]...), '0'), true
			}
		case ']', '}':
			if depth--; depth == most {
				from = i + 1
			}
		}
	}
	if !deep {
		return msg, false
	}
	if depth <= most {
		short = append(short, msg[from:]...)
	}
	return short, true
}

// stringEnd is the place of the quotation mark that ends the string which begins at msg[i], or
// len(msg).
func stringEnd(msg []byte, i int) int {
	for i++; ; i++ {
		n := bytes.IndexByte(msg[i:], '"')
		if n < 0 {
			return len(msg)
		}
		i += n
		escapes := 0
		for msg[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i
		}
	}
}

// freeID is how many bytes of a call's id are not counted: to close a handle must be possible when
// there is no room.
const freeID = 64

// keeps is how many bytes of a call are kept until it is answered, when its parameters have been
// decoded. An answer inside of a batch is kept until the batch is complete.
func (m *method) bufferNeed(c *call, a args) int {
	n := max(0, len(c.id)-freeID)
	for i, p := range m.params {
		if p.typ == blob {
			n += len(a.blob(i))
		}
	}
	if c.batch != nil && c.id != nil && m.maxAnswer != nil {
		n += base64.StdEncoding.EncodedLen(m.maxAnswer(a))
	}
	return n
}

// fits says whether n bytes more can be kept. What it says holds until the reading goroutine, the
// only one to call hold, does so.
func (s *server) fits(n int) bool { return s.buffered.Load()+int64(n) <= int64(s.Limits.Buffered) }

// hold counts bytes as kept for a call, n in all. It fails if there is no room.
func (s *server) reserveBuffer(c *call, n int) error {
	more := n - c.buffered
	if more > 0 && !s.fits(more) {
		return overLimit("the calls in flight of this session keep %d bytes, and %d more would exceed the limit of %d (--max-buffered); wait for answers, or send less at once",
			s.buffered.Load(), more, s.Limits.Buffered)
	}
	s.buffered.Add(int64(more))
	c.buffered = n
	return nil
}

// letGo counts the bytes that are kept for a call out.
func (s *server) releaseBuffer(c *call) {
	if c.buffered == 0 {
		return
	}
	if c.batch != nil && c.id != nil {
		c.batch.addBuffered(c.buffered) // its answer is there until all are
		return
	}
	s.buffered.Add(-int64(c.buffered))
	c.buffered = 0
}

// freeAnswer is how many bytes of an answer inside of a batch are not counted, so that most calls
// need no room.
const freeAnswer = 1 << 10

// keepAnswer counts the answer of a call inside of a batch, but for what was counted before the
// call began. It gives the answer, or an error in its place if there is no room. No answer that is
// so large tells of an effect.
func (s *server) bufferAnswer(c *call, answer []byte) []byte {
	more := len(answer) - freeAnswer - c.buffered
	if more <= 0 {
		return answer
	}
	if held := s.buffered.Add(int64(more)); held > int64(s.Limits.Buffered) {
		s.buffered.Add(-int64(more))
		err := overLimit("tlsd keeps the answers of a batch until the last one, and %d bytes more "+
			"would exceed the limit of %d (--max-buffered); send smaller batches",
			more, s.Limits.Buffered)
		s.sess.Fail(err)
		return append([]byte(`"error":`), encode(wireError(err))...)
	}
	c.batch.addBuffered(more)
	return answer
}
