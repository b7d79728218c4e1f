package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"unicode/utf8"

	"github.com/sourcegraph/jsonrpc2"

	"tlsd/rpc/wire"
	"tlsd/session"
)

// stream is the library's view of the connection: it yields one good call after
// another (ReadObject), and is told to begin each before it has to yield the
// next (Handle). All of it runs on the library's one reading goroutine.
type stream struct {
	*server
	queue []*call // good calls that have been read and not yielded
	now   *call   // the call that was yielded last
	err   error   // why the stream ended, if not in an orderly way

	// Room that the short way uses again and again.
	ids, head, data []byte
	joined          []part
	next            [longestHot]byte
}

// token is what the library gets to see of a call. It needs no more than that
// there is one: it could not carry every id, and would decode the parameters
// and encode them again.
var token = []byte(`{"jsonrpc":"2.0","method":"call"}`)

// ReadObject yields the next call. An error ends the connection.
func (st *stream) ReadObject(v any) error {
	for len(st.queue) == 0 {
		err := st.message()
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			st.linger()
			return io.EOF
		default:
			if !errors.Is(err, net.ErrClosed) {
				st.err = err
			}
			return err
		}
	}
	st.now, st.queue = st.queue[0], st.queue[1:]
	return json.Unmarshal(token, v)
}

// Handle begins the call that was yielded last.
func (st *stream) Handle(context.Context, *jsonrpc2.Conn, *jsonrpc2.Request) { st.begin(st.now) }

// WriteObject is part of the library's interface, but answers go past the library.
func (st *stream) WriteObject(any) error { return errors.New("rpc: answers go past the library") }

// Close ends the connection.
func (st *stream) Close() error {
	st.hangUp()
	return nil
}

// message reads one message with its raw bytes and queues its calls. A bad message
// is answered here and is no error; an error means that no more can be read.
func (st *stream) message() error {
	line, err := st.r.Line()
	if errors.Is(err, wire.ErrTooLong) {
		return st.hopeless(overLimit("the line is longer than the %d bytes that a message may have (--max-message)", st.Limits.Message))
	}
	if err != nil {
		return err
	}
	if c, ok := parseHot(line); ok {
		if done, err := st.hot(c); done || err != nil {
			if st.unflushed += c.n; st.unflushed >= flushEvery {
				st.flush()
			}
			return err
		}
	}
	if c := parsePlain(line); c != nil {
		st.begin(c)
		return nil
	}
	if !utf8.Valid(line) {
		st.refuse(&protocolError{wire.CodeParse, "parse error: the line is not UTF-8"}, nil)
		return nil
	}
	line, deep := shallow(line, st.Limits.Nesting)
	if err := syntaxError(line); err != nil {
		st.refuse(&protocolError{wire.CodeParse, fmt.Sprintf("parse error: the line is not JSON: %v", err)}, nil)
		return nil
	}
	var tooDeep error
	if deep {
		tooDeep = overLimit("the message is nested deeper than the %d levels that it may be (--max-nesting)", st.Limits.Nesting)
	}
	if first(line) == '[' {
		if deep {
			st.refuse(tooDeep, nil)
			return nil
		}
		st.queueBatch(line)
		return nil
	}
	c, raw, why := parse(line)
	if raw == badRaw {
		return st.hopeless(invalid(why))
	}
	if c != nil {
		c.refuse = tooDeep
	}
	if raw >= 0 {
		// They are read even if the message is bad, to find the next one.
		if err := st.readRaw(c, raw); err != nil {
			return err
		}
	}
	if c == nil {
		st.refuse(invalid(why), nil)
		return nil
	}
	st.queue = append(st.queue, c)
	return nil
}

// readRaw reads the raw bytes of a call, or drops them if the call (nil: not a good one) cannot be carried out.
func (st *stream) readRaw(c *call, n int) (err error) {
	if c != nil && c.refuse == nil {
		c.refuse = st.hold(c, n)
	}
	if c == nil || c.refuse != nil {
		return st.r.Skip(n)
	}
	c.raw, err = st.r.Raw(n)
	return err
}

// queueBatch queues the good calls of a batch and answers the rest.
func (st *stream) queueBatch(line []byte) {
	elements := splitBatch(line)
	switch {
	case len(elements) == 0:
		st.refuse(invalid("a batch has at least one call"), nil)
		return
	case len(elements) > wire.MaxBatch:
		st.refuse(overLimit("a batch has at most %d calls; send several", wire.MaxBatch), nil)
		return
	}
	b := &batch{left: 1} // held until all calls are counted
	for _, e := range elements {
		c, raw, why := parse(e)
		if raw != noRaw && why == "" {
			why = "raw bytes cannot be announced inside a batch"
		}
		if why != "" {
			b.add()
			st.refuse(invalid(why), b)
			continue
		}
		if c.id != nil {
			b.add()
		}
		c.batch = b
		st.queue = append(st.queue, c)
	}
	st.batchDone(b, nil)
}

// splitBatch takes an array apart, which must be JSON. It stops when there are
// too many elements: a line has room for millions.
func splitBatch(line []byte) []json.RawMessage {
	var elements []json.RawMessage
	d := json.NewDecoder(bytes.NewReader(line))
	d.Token() // the bracket
	for d.More() && len(elements) <= wire.MaxBatch {
		var e json.RawMessage
		if d.Decode(&e) != nil {
			break
		}
		elements = append(elements, e)
	}
	return elements
}

// hopeless answers a message after which the next one cannot be found.
func (st *stream) hopeless(err error) error {
	const then = "; closing the connection, because the start of the next message is unknown"
	switch e := err.(type) {
	case *protocolError:
		e.why += then
	case *session.Error:
		e.Why += then
	}
	st.refuse(err, nil)
	return err
}
