package rpc

import (
	"bytes"
	"encoding/base64"
	"fmt"

	"tlsd/internal/kind"
	"tlsd/rpc/wire"
	"tlsd/session"
)

// Limits are the limits for the messages of one session. Zero means the default.
type Limits struct {
	Message  int // bytes of a message; default wire.MaxLine
	Nesting  int // levels of arrays and objects in a message; default 64
	Buffered int // bytes that are kept for calls in flight; default 64 MiB
}

// WithDefaults replaces zeros with the defaults.
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

// shallow shortens a message that is nested too deeply, so that parse can still find its id. It
// replaces each array or object that is nested deeper than the given number of levels with the
// number 0. The result deep says whether the message had such an array or object. shallow does not
// check that the replaced text is JSON.
func shallow(msg []byte, levels int) (short []byte, deep bool) {
	if bytes.Count(msg, []byte("["))+bytes.Count(msg, []byte("{")) <= levels {
		return msg, false // for nearly all messages this cheap check is enough
	}
	depth, from := 0, 0
	for i := 0; i < len(msg); i++ {
		switch msg[i] {
		case '"':
			i = stringEnd(msg, i)
		case '[', '{':
			if depth++; depth == levels+1 {
				short, deep = append(append(short, msg[from:i]...), '0'), true
			}
		case ']', '}':
			if depth--; depth == levels {
				from = i + 1
			}
		}
	}
	if !deep {
		return msg, false
	}
	if depth <= levels {
		short = append(short, msg[from:]...)
	}
	return short, true
}

// stringEnd returns the index of the quotation mark that ends the string beginning at msg[i]. It
// returns len(msg) if there is none.
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

// The first freeID bytes of a call's id do not count towards Limits.Buffered. So a Close with a
// short id needs no room, and a caller can close a handle even if the limit is reached.
const freeID = 64

// bufferNeed is the number of bytes that tlsd keeps for a call, from the decoding of its parameters
// until the answer. tlsd keeps the answers of a batch until the batch is complete. So for a Read in
// a batch, the number includes the largest blob that the answer can have.
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

// reserveBuffer sets c.buffered, the number of bytes that tlsd keeps for the call, to n. It fails
// if the session would then exceed Limits.Buffered. Only the reading goroutine calls it.
func (s *server) reserveBuffer(c *call, n int) error {
	more := n - c.buffered
	if more > 0 && s.buffered.Load()+int64(more) > int64(s.Limits.Buffered) {
		return overLimit("the calls in flight of this session keep %d bytes, and %d more "+
			"would exceed the limit of %d (--max-buffered); wait for answers, or send "+
			"less at once",
			s.buffered.Load(), more, s.Limits.Buffered)
	}
	s.buffered.Add(int64(more))
	c.buffered = n
	return nil
}

// releaseBuffer releases the bytes that are kept for a call. For a call in a batch, the batch
// releases them when it is complete.
func (s *server) releaseBuffer(c *call) {
	if c.buffered == 0 {
		return
	}
	if c.batch != nil && c.id != nil {
		c.batch.addBuffered(c.buffered) // the answer is kept until the batch is complete
		return
	}
	s.buffered.Add(-int64(c.buffered))
	c.buffered = 0
}

// The first freeAnswer bytes of an answer in a batch do not count towards Limits.Buffered. Most
// answers are shorter.
const freeAnswer = 1 << 10

// bufferAnswer reserves room for the answer of a call in a batch, and returns the answer. Room for
// c.buffered bytes was reserved before the call, and freeAnswer bytes need no room. If the rest
// would exceed Limits.Buffered, bufferAnswer returns an error in place of the answer.
//
// After this error the caller does not know the result of the call. But no data of the peer is
// lost, because the room for the answer of a Read was reserved before the Read. All other calls
// with long answers only ask for facts, so the caller can make them again.
func (s *server) bufferAnswer(c *call, answer []byte) []byte {
	more := len(answer) - freeAnswer - c.buffered
	if more <= 0 {
		return answer
	}
	if held := s.buffered.Add(int64(more)); held > int64(s.Limits.Buffered) {
		s.buffered.Add(-int64(more))
		err := overLimit("tlsd keeps the answers of a batch until it is complete, and %d "+
			"bytes more would exceed the limit of %d (--max-buffered); send smaller "+
			"batches",
			more, s.Limits.Buffered)
		s.sess.Fail(err)
		return append([]byte(`"error":`), encode(wireError(err))...)
	}
	c.batch.addBuffered(more)
	return answer
}
