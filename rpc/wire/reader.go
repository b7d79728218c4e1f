package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// ErrTooLong is returned for a line of more than the reader's bound.
var ErrTooLong = errors.New("message too long")

// Reader reads messages, one a line. It is not safe for concurrent use.
//
// Rules: it keeps at most one line of bounded size, besides what it has read ahead. It asks for
// more bytes only while it has no whole line.
type Reader struct {
	src   *bufio.Reader
	max   int
	buf   []byte // a line that is longer than what src holds
	start int64  // where the last line began in the stream
	taken int64  // bytes of the stream that were taken from src
}

// readAhead is how many bytes a Reader asks for at once, at most.
const readAhead = 16 << 10

// NewReader reads messages whose lines have at most max bytes.
func NewReader(r io.Reader, max int) *Reader {
	return &Reader{src: bufio.NewReaderSize(r, readAhead), max: max}
}

// Start is the offset in the stream at which the last line began.
func (r *Reader) Start() int64 { return r.start }

// Line returns the next line that is not blank, without its end. It is valid until the next call.
// At the end of the stream it returns io.EOF. A last line without line feed counts. After
// ErrTooLong the reader cannot be used any more.
func (r *Reader) Line() ([]byte, error) {
	for {
		r.start = r.taken
		line, err := r.line()
		if line = bytes.TrimSuffix(line, []byte("\r")); len(bytes.TrimSpace(line)) > 0 {
			if err == io.EOF {
				err = nil
			}
			return line, err
		}
		if err != nil {
			return nil, err
		}
	}
}

// line returns the next line. With an error it returns what there is of it.
func (r *Reader) line() ([]byte, error) {
	const keep = 1 << 20
	if cap(r.buf) > keep {
		r.buf = nil // it was for one huge line
	}
	r.buf = r.buf[:0]
	for {
		part, err := r.src.ReadSlice('\n')
		r.taken += int64(len(part))
		text := bytes.TrimSuffix(part, []byte("\n"))
		switch {
		case len(r.buf)+len(text) > r.max:
			return nil, ErrTooLong
		case err == nil && len(r.buf) == 0:
			return text, nil
		}
		r.buf = append(r.buf, text...)
		if err != bufio.ErrBufferFull {
			return r.buf, err
		}
	}
}
