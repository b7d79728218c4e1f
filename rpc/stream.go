package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"unicode/utf8"

	"tlsd/rpc/wire"
	"tlsd/session"
)

// A stream is the connection as package jsonrpc2 sees it, a jsonrpc2.ObjectStream. In this file,
// "the library" means package jsonrpc2, and not libssl. The library takes good requests from the
// stream, one after another. For each request, it gives the stream one response.
//
// The library does not do these things as JSON-RPC 2.0 demands, so the stream does them:
//
//   - A bad line is answered with id null, and the connection lives on.
//   - A batch is taken apart, and its answers are put together (batch.go).
//   - An id of any kind (a string, an integer of any size, null) is replaced by a number for the
//     library. The answer gets the id back. A notification gets a number too, and its answer is
//     dropped.
//
// ReadObject runs on the library's only reading goroutine. So does server.Handle, which the library
// calls with each request before it reads the next one. The library calls WriteObject from several
// goroutines, but never from two at the same time.
type stream struct {
	*server

	// Only the reading goroutine uses these. When it has ended, Serve uses them.
	queue []*call // calls that the library has not taken yet
	last  uint64  // the number of the newest call that the library has taken
	err   error   // why the stream has ended; nil after an orderly end
}

// ReadObject gives the library the next request. An error ends the connection.
func (st *stream) ReadObject(v any) error {
	for len(st.queue) == 0 {
		err := st.message()
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			st.awaitAnswers()
			return io.EOF
		default:
			if !errors.Is(err, net.ErrClosed) {
				st.err = err
			}
			return err
		}
	}
	c := st.queue[0]
	st.queue = st.queue[1:]
	st.last++
	c.number = st.last
	st.register(c)
	return json.Unmarshal(c.message(), v)
}

// message reads one message and queues its calls. It answers a bad message itself, and returns nil.
// An error means that no more can be read.
func (st *stream) message() error {
	line, err := st.r.Line()
	if errors.Is(err, wire.ErrTooLong) {
		return st.refuseAndStop(overLimit("the line is longer than %d bytes, the limit of "+
			"a message (--max-message)", st.Limits.Message))
	}
	if err != nil {
		return err
	}
	st.descriptors.beginMessage(st.r.Start())
	if !utf8.Valid(line) {
		st.refuse(&protocolError{wire.CodeParse, "parse error: the line is not UTF-8"}, nil)
		return nil
	}
	line, deep := shallow(line, st.Limits.Nesting)
	c, why, err := parse(line)
	if err != nil {
		why := fmt.Sprintf("parse error: the line is not JSON: %v", err)
		st.refuse(&protocolError{wire.CodeParse, why}, nil)
		return nil
	}
	var tooDeep error
	if deep {
		tooDeep = overLimit("the message is nested deeper than %d levels, the limit of a "+
			"message (--max-nesting)", st.Limits.Nesting)
	}
	switch {
	case first(line) == '[' && deep:
		st.refuse(tooDeep, nil)
	case first(line) == '[':
		st.queueBatch(line)
	case c == nil:
		st.refuse(invalid(why), nil)
	default:
		c.refusal = tooDeep
		st.queue = append(st.queue, c)
	}
	return nil
}

// refuseAndStop answers a line that is too long. The start of the next message is then unknown. So
// refuseAndStop also returns an error, which ends the connection.
func (st *stream) refuseAndStop(err *session.Error) error {
	err.Why += "; closing the connection, because the start of the next message is unknown"
	st.refuse(err, nil)
	return err
}

// WriteObject takes a response from the library. It answers the request under the request's own id.
func (st *stream) WriteObject(v any) error {
	msg, err := json.Marshal(v)
	if err != nil {
		return err
	}
	number, answer, ok := splitResponse(msg)
	if !ok {
		return fmt.Errorf("rpc: jsonrpc2 writes a response of unknown form: %.60s",
			msg)
	}
	c := st.unregister(number)
	if c == nil {
		return fmt.Errorf("rpc: the response %d answers no request", number)
	}
	if c.id == nil {
		return nil
	}
	if c.batch != nil {
		answer = st.bufferAnswer(c, answer)
	}
	return st.writeAnswer(c.id, c.batch, answer)
}

// splitResponse takes a response of the library apart: {"id":NUMBER,ANSWER,"jsonrpc":"2.0"}. ANSWER
// is the member result or error.
func splitResponse(msg []byte) (number uint64, answer []byte, ok bool) {
	rest, begins := bytes.CutPrefix(msg, []byte(`{"id":`))
	rest, ends := bytes.CutSuffix(rest, []byte(`,"jsonrpc":"2.0"}`))
	digits, answer, two := bytes.Cut(rest, []byte(`,`))
	number, err := strconv.ParseUint(string(digits), 10, 64)
	return number, answer, begins && ends && two && err == nil
}

// Close ends the connection.
func (st *stream) Close() error {
	st.hangUp()
	return nil
}

// refuse sends an error with id null, and stores it for tls.LastError. The error is about a message
// that is not a request, or about the whole session. b is the message's batch, or nil.
func (s *server) refuse(err error, b *batch) {
	s.sess.Fail(err)
	_ = s.writeAnswer(json.RawMessage("null"), b, append([]byte(`"error":`),
		encode(wireError(err))...))
}

// writeAnswer writes an answer. The parameter member is the answer's JSON member "result" or
// "error". In a batch the answer waits for the other answers.
func (s *server) writeAnswer(id json.RawMessage, b *batch, member []byte) error {
	out := make([]byte, 0, 64+len(id)+len(member))
	out = append(append(out, `{"jsonrpc":"2.0","id":`...), id...)
	out = append(append(append(out, ','), member...), '}')
	if b != nil {
		return s.batchDone(b, out)
	}
	return s.write(out)
}
