package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// ErrTooLong is returned for a line of more than the reader's bound.
var ErrTooLong = errors.New("message too long")

// Reader reads messages. It is not safe for concurrent use.
type Reader struct {
	src  source
	max  int
	buf  []byte // a line that is not in src's memory
	lent int    // bytes that the last call has returned and not yet taken from src

	rings *Rings // that come into use with the next blank line; or nil
}

// A source is where a Reader's bytes come from.
type source interface {
	// ahead is what has been received and not been taken. It is valid until take or more.
	ahead() []byte
	take(n int)
	// more waits until ahead is longer. It gives bufio.ErrBufferFull if that cannot become.
	more() error
	// full fills p.
	full(p []byte) error
}

// readAhead is how much a Reader asks a socket for at once, in bytes.
const readAhead = 128 << 10

// NewReader reads messages whose lines have at most max bytes.
func NewReader(r io.Reader, max int) *Reader {
	return &Reader{src: socket{bufio.NewReaderSize(r, readAhead), r}, max: max}
}

// socket is a source of which a part has been copied into memory of our own.
type socket struct {
	*bufio.Reader
	under io.Reader
}

func (s socket) ahead() []byte       { p, _ := s.Peek(s.Buffered()); return p }
func (s socket) take(n int)          { s.Discard(n) }
func (s socket) more() error         { _, err := s.Peek(s.Buffered() + 1); return err }
func (s socket) full(p []byte) error { _, err := io.ReadFull(s.Reader, p); return err }

// MoveTo makes the Reader read from the rings, from the next blank line on.
func (r *Reader) MoveTo(rings *Rings) { r.rings = rings }

// Line returns the next line that is not blank, without its end. It is valid until
// the next call. At the end of the stream it returns io.EOF; a last line without line
// feed counts. After ErrTooLong the reader cannot be used any more.
func (r *Reader) Line() ([]byte, error) {
	r.settle()
	for {
		line, err := r.line()
		if line = bytes.TrimSuffix(line, []byte("\r")); len(bytes.TrimSpace(line)) > 0 {
			if err == io.EOF {
				err = nil
			}
			return line, err
		}
		if err == nil && r.rings != nil {
			err = r.move()
		}
		if err != nil {
			return nil, err
		}
	}
}

// line returns the next line.
func (r *Reader) line() ([]byte, error) {
	if cap(r.buf) > 1<<20 {
		r.buf = nil // do not keep the room of one huge line for ever
	}
	r.buf = r.buf[:0]
	searched := 0 // bytes ahead in which there is no line feed
	for {
		p := r.src.ahead()
		if end := bytes.IndexByte(p[searched:], '\n'); end >= 0 {
			return r.found(p[:searched+end])
		}
		if searched = len(p); len(r.buf)+searched > r.max {
			return nil, ErrTooLong
		}
		err := r.src.more()
		if err == nil {
			continue
		}
		r.keep(r.src.ahead())
		searched = 0
		if err != bufio.ErrBufferFull {
			return r.buf, err
		}
	}
}

// found takes a line, or the end of one that has been kept in part.
func (r *Reader) found(p []byte) ([]byte, error) {
	if len(r.buf)+len(p) > r.max {
		return nil, ErrTooLong
	}
	if _, private := r.src.(socket); private && len(r.buf) == 0 {
		r.src.take(len(p) + 1)
		return p, nil
	}
	// What others can write to while it is looked at is copied first.
	r.keep(p)
	r.src.take(1)
	return r.buf, nil
}

// keep takes p, which is ahead, and puts it behind what is kept of a line.
func (r *Reader) keep(p []byte) {
	r.buf = append(r.buf, p...)
	r.src.take(len(p))
}

// move makes the rings the source.
func (r *Reader) move() error {
	s := r.src.(socket)
	if err := onlyBells(s.ahead()); err != nil {
		return err
	}
	r.src = &ringSource{in: &r.rings.in, bells: s.under}
	r.rings = nil
	return nil
}

// settle takes what has been lent.
func (r *Reader) settle() {
	if r.lent > 0 {
		r.src.take(r.lent)
		r.lent = 0
	}
}

// Raw reads the n raw bytes behind the last line into a new slice.
func (r *Reader) Raw(n int) ([]byte, error) {
	p := make([]byte, n)
	if err := r.Full(p); err != nil {
		return nil, err
	}
	return p, nil
}

// Full fills p with raw bytes.
func (r *Reader) Full(p []byte) error {
	r.settle()
	return cutShort(r.src.full(p))
}

const (
	fullRecord = 1 << 14  // the most that one TLS record carries (RFC 8446 section 5.1)
	mostLent   = 64 << 10 // of a ring, so that its other side can go on meanwhile
)

// Piece returns some of the next n raw bytes, in memory that may be the caller's, who can change it at
// any time. They are valid until the next call. It waits until they fill a TLS record or are all, and
// leaves what would fill one in part while there is more to come.
func (r *Reader) Piece(n int) ([]byte, error) {
	r.settle()
	p := r.src.ahead()
	for len(p) < min(n, fullRecord) {
		if err := r.src.more(); err != nil {
			return nil, cutShort(err)
		}
		p = r.src.ahead()
	}
	p = p[:min(n, len(p), mostLent)]
	if len(p) < n {
		p = p[:len(p)/fullRecord*fullRecord]
	}
	r.lent = len(p)
	return p, nil
}

// Ahead is what has been received and not yet been taken. It is valid until the next call but Skip, and may be in
// memory that the caller can change at any time.
func (r *Reader) Ahead() []byte {
	r.settle()
	return r.src.ahead()
}

// Skip reads n raw bytes and drops them.
func (r *Reader) Skip(n int) error {
	r.settle()
	for {
		p := r.src.ahead()
		p = p[:min(n, len(p))]
		r.src.take(len(p))
		if n -= len(p); n == 0 {
			return nil
		}
		if err := r.src.more(); err != nil {
			return cutShort(err)
		}
	}
}

func cutShort(err error) error {
	switch err {
	case nil:
		return nil
	case io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("raw bytes cut short: %w", err)
}
