package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// ErrTooLong is the error of a line that is longer than the reader's limit.
var ErrTooLong = errors.New("message too long")

// A Reader reads messages, one a line. It is not safe for concurrent use.
//
// A Reader needs limited memory: for one line, and for readAhead bytes. It reads from the stream
// only while it has no complete line.
type Reader struct {
	src   *bufio.Reader
	max   int
	buf   []byte // a line that is longer than the buffer of src
	start int64  // see Start
	taken int64  // bytes of the stream that were taken from src
}

// readAhead is the most bytes that a Reader asks for at once.
const readAhead = 16 << 10

// NewReader reads messages from r. A line of more than max bytes is the error ErrTooLong.
func NewReader(r io.Reader, max int) *Reader {
	return &Reader{src: bufio.NewReaderSize(r, readAhead), max: max}
}

// Start is the offset in the stream at which the most recent result of Line begins.
func (r *Reader) Start() int64 { return r.start }

// Line returns the next line that is not blank, without its end. The line is valid until the next
// call. At the end of the stream the error is io.EOF. A last line without a line feed counts as a
// line. After ErrTooLong the reader must not be used any more.
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

// line returns the next line. If the stream ends or fails before the line feed, line returns the
// part that has come and the error. If the line is too long, line returns only ErrTooLong.
func (r *Reader) line() ([]byte, error) {
	const keep = 1 << 20
	if cap(r.buf) > keep {
		r.buf = nil // drop the buffer of one huge line
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
