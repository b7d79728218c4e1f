package wire

import (
	"net"
	"sync"
	"time"
)

// A Watcher learns when the other side may have received only a part of a message. Its methods must
// not wait.
type Watcher interface {
	// Writing is called before a write that may reach the other side in parts. Written is
	// called after this write, but not if it fails.
	Writing()
	Written()
}

// onePiece is a number of bytes that a Unix stream socket takes completely or not at all. Linux
// splits only data that is longer than half the socket's buffer, and a buffer has at least 4.5 KiB
// (socket(7), SO_SNDBUF).
const onePiece = 2000

// A Writer writes messages, one a line. It is safe for concurrent use: messages do not mix.
type Writer struct {
	timeout time.Duration
	conn    net.Conn
	watch   Watcher // or nil

	mu   sync.Mutex // locked while Write runs; guards the rest
	err  error      // if not nil, an earlier write has failed, and the stream is broken
	line []byte     // room for a message and its line feed
}

// NewWriter makes a Writer of messages to conn. A message that the other side does not take within
// the timeout breaks the stream. Timeout 0 means no timeout. watch may be nil.
func NewWriter(conn net.Conn, timeout time.Duration, watch Watcher) *Writer {
	return &Writer{conn: conn, timeout: timeout, watch: watch}
}

// Write sends a message, which must have no line feed. After an error every later Write fails with
// the same error.
func (w *Writer) Write(msg []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.line = append(append(w.line[:0], msg...), '\n')
	if w.timeout > 0 {
		w.conn.SetWriteDeadline(time.Now().Add(w.timeout))
	}
	inParts := w.watch != nil && len(w.line) > onePiece
	if inParts {
		w.watch.Writing()
	}
	_, w.err = w.conn.Write(w.line)
	if inParts && w.err == nil {
		w.watch.Written()
	}
	const keep = 64 << 10
	if cap(w.line) > keep {
		w.line = nil // drop the buffer of one huge message
	}
	return w.err
}
