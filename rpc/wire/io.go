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

// readAhead is how much a Reader asks for at once, in bytes.
const readAhead = 128 << 10

// NewReader reads messages whose lines have at most max bytes.
func NewReader(r io.Reader, max int) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, readAhead), max: max}
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
	if err := r.Full(p); err != nil {
		return nil, err
	}
	return p, nil
}

// Full fills p with raw bytes.
func (r *Reader) Full(p []byte) error {
	_, err := io.ReadFull(r.r, p)
	return cutShort(err)
}

// Piece returns some of the next n raw bytes, at least one: those that have
// arrived, in the reader's own memory. They are valid until the next call.
func (r *Reader) Piece(n int) ([]byte, error) {
	if _, err := r.r.Peek(1); err != nil {
		return nil, cutShort(err)
	}
	p, err := r.r.Peek(min(n, r.r.Buffered()))
	r.r.Discard(len(p))
	return p, cutShort(err)
}

// Ahead is what has been received and not yet been taken. It is valid until the next call but Skip.
func (r *Reader) Ahead() []byte {
	p, _ := r.r.Peek(r.r.Buffered())
	return p
}

// Skip reads n raw bytes and drops them.
func (r *Reader) Skip(n int) error {
	_, err := r.r.Discard(n)
	return cutShort(err)
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

// A Watcher is told when the other side could be left with a part of a message. It
// must not wait.
type Watcher interface {
	// Writing and Written stand around a write of which the other side could get
	// a part. After one that has failed, Written is not called.
	Writing()
	Written()
}

// onePiece is what a Unix stream socket takes in one piece or not at all,
// whatever its buffer's size: Linux splits only what is longer than half the buffer, and a
// buffer has at least 4.5 KiB (socket(7), SO_SNDBUF).
const onePiece = 2000

// Writer writes messages. It is safe for concurrent use.
type Writer struct {
	timeout time.Duration
	conn    net.Conn
	watch   Watcher // or nil

	mu     sync.Mutex // held while a message is written, which the timeout bounds; guards the rest
	err    error      // of an earlier write; the stream is broken
	late   []byte     // messages that Flush will write
	pieces [2][]byte
}

// NewWriter writes messages to conn. A message that cannot be written within
// the timeout, because the other side does not read, breaks the stream; 0 means no
// timeout. The Watcher may be nil.
func NewWriter(conn net.Conn, timeout time.Duration, watch Watcher) *Writer {
	return &Writer{conn: conn, timeout: timeout, watch: watch}
}

// Write sends a message, which has no line feed, and the raw bytes that it announces. After
// an error every later Write fails with the same error.
func (w *Writer) Write(msg, raw []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late = append(append(w.late, msg...), '\n')
	return w.flush(raw)
}

// Later is Write, but the message may be kept until the next Write or Flush. The
// caller sees to it that one follows soon.
func (w *Writer) Later(msg, raw []byte) error {
	const most = 16 << 10
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late = append(append(w.late, msg...), '\n')
	if len(w.late)+len(raw) > most {
		return w.flush(raw)
	}
	w.late = append(w.late, raw...)
	return w.err
}

// Flush sends what Later has kept.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.late) == 0 {
		return w.err
	}
	return w.flush(nil)
}

// flush sends what has been kept, and raw. w.mu must be held.
func (w *Writer) flush(raw []byte) error {
	if w.err != nil {
		return w.err
	}
	if w.timeout > 0 {
		w.conn.SetWriteDeadline(time.Now().Add(w.timeout))
	}
	inParts := w.watch != nil && len(w.late)+len(raw) > onePiece
	if inParts {
		w.watch.Writing()
	}
	if len(raw) == 0 {
		_, w.err = w.conn.Write(w.late)
	} else {
		w.pieces = [2][]byte{w.late, raw}
		pieces := net.Buffers(w.pieces[:])
		_, w.err = pieces.WriteTo(w.conn)
		w.pieces = [2][]byte{}
	}
	if inParts && w.err == nil {
		w.watch.Written()
	}
	const keep = 64 << 10
	if w.late = w.late[:0]; cap(w.late) > keep {
		w.late = nil // do not keep the room of one huge message for ever
	}
	return w.err
}
