package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// ErrTooLong is returned for a line of more than the reader's bound.
var ErrTooLong = errors.New("message too long")

// Reader reads messages. It is not safe for concurrent use.
type Reader struct {
	r   *bufio.Reader
	max int
	buf []byte // a line that did not fit into r's buffer
}

// NewReader reads messages whose lines have at most max bytes.
func NewReader(r io.Reader, max int) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 64<<10), max: max}
}

// Line returns the next line that is not blank, without its end. It is valid until
// the next call. At the end of the stream it returns io.EOF; a last line without line
// feed counts. After ErrTooLong the reader cannot be used any more.
func (r *Reader) Line() ([]byte, error) {
	for {
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

func (r *Reader) line() ([]byte, error) {
	part, err := r.r.ReadSlice('\n')
	if err == nil {
		if len(part)-1 > r.max {
			return nil, ErrTooLong
		}
		return part[:len(part)-1], nil
	}
	if cap(r.buf) > 1<<20 {
		r.buf = nil // do not keep the room of one huge line for ever
	}
	r.buf = append(r.buf[:0], part...)
	for err == bufio.ErrBufferFull && len(r.buf) <= r.max {
		part, err = r.r.ReadSlice('\n')
		r.buf = append(r.buf, part...)
	}
	line := r.buf
	if err == nil {
		line = line[:len(line)-1]
	}
	if len(line) > r.max {
		return nil, ErrTooLong
	}
	return line, err
}

// Raw reads the n raw bytes behind the last line into a new slice.
func (r *Reader) Raw(n int) ([]byte, error) {
	p := make([]byte, n)
	if _, err := io.ReadFull(r.r, p); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("raw bytes cut short: %w", err)
	}
	return p, nil
}

// Writer writes messages. It is safe for concurrent use.
type Writer struct {
	timeout time.Duration

	mu     sync.Mutex // held while a message is written
	conn   net.Conn
	err    error // of an earlier write; the stream is broken
	pieces [3][]byte
}

// NewWriter writes messages to conn. A message that cannot be written within
// the timeout, because the other side does not read, breaks the stream; 0 means no
// timeout.
func NewWriter(conn net.Conn, timeout time.Duration) *Writer {
	return &Writer{conn: conn, timeout: timeout}
}

var newline = []byte("\n")

// Write sends a message, which has no line feed, and the raw bytes that it announces. After
// an error every later Write fails with the same error.
func (w *Writer) Write(msg, raw []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if w.timeout > 0 {
		w.conn.SetWriteDeadline(time.Now().Add(w.timeout))
	}
	w.pieces = [3][]byte{msg, newline, raw}
	pieces := net.Buffers(w.pieces[:])
	if len(raw) == 0 {
		pieces = pieces[:2]
	}
	_, w.err = pieces.WriteTo(w.conn)
	return w.err
}
