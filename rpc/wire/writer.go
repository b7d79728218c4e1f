package wire

import (
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Watcher is told when the other side could be left with a part of a message on the socket. It
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
	late   []byte     // messages that Flush will write; none with rings
	pieces [2][]byte
	out    *putter         // after WriteAndMoveTo
	sock   syscall.RawConn // then
	due    due             // what Flush will wake the other side for
}

// due says for which messages the other side has not been woken.
type due struct{ some, answers bool }

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
	if w.out != nil {
		return w.put(msg, raw, due{true, true}, true)
	}
	w.late = append(append(w.late, msg...), '\n')
	return w.flush(raw)
}

// Later is Write, but the message may be kept, or the other side left asleep, until the next Write or Flush. The
// caller sees to it that one follows soon.
func (w *Writer) Later(msg, raw []byte) error {
	return w.later(msg, raw, due{true, true})
}

// Acknowledge is Later for the answer to a Write, for which not everybody waits who waits.
func (w *Writer) Acknowledge(msg []byte) error {
	return w.later(msg, nil, due{some: true})
}

func (w *Writer) later(msg, raw []byte, d due) error {
	const most = 16 << 10
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.out != nil {
		return w.put(msg, raw, d, false)
	}
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
	switch {
	case w.err != nil:
		return w.err
	case w.out != nil:
		return w.ringBell()
	case len(w.late) == 0:
		return nil
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

// WriteAndMoveTo writes a message, the last on the socket. What comes after it goes through the rings.
func (w *Writer) WriteAndMoveTo(msg []byte, rings *Rings, conn *net.UnixConn) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late = append(append(w.late, msg...), '\n')
	if err := w.flush(nil); err != nil {
		return err
	}
	if w.sock, w.err = conn.SyscallConn(); w.err == nil {
		w.out = &rings.out
	}
	return w.err
}

// lineFeed ends a line, and is an empty one.
var lineFeed = []byte("\n")

// put puts a message into the ring, and wakes the other side if that is to be now. w.mu must be held.
func (w *Writer) put(msg, raw []byte, d due, now bool) error {
	var deadline time.Time // of the wait for room, once there is one
	for _, p := range [...][]byte{msg, lineFeed, raw} {
		for len(p) > 0 && w.err == nil {
			var n int
			if n, w.err = w.out.put(p); n < len(p) && w.err == nil {
				w.err = w.awaitRoom(&deadline)
			}
			p = p[n:]
		}
	}
	if w.err != nil {
		return w.err
	}
	w.out.publish()
	w.due.some = w.due.some || d.some
	w.due.answers = w.due.answers || d.answers
	if now {
		return w.ringBell()
	}
	return nil
}

// awaitRoom waits for room in the ring, or for a while. It fails if the other side is gone, or has not made
// room until the deadline, which begins with the first wait.
func (w *Writer) awaitRoom(deadline *time.Time) error {
	w.out.publish()
	if err := w.wake(true); err != nil {
		return err
	}
	switch now := time.Now(); {
	case w.timeout > 0 && deadline.IsZero():
		*deadline = now.Add(w.timeout)
	case w.timeout > 0 && now.After(*deadline):
		return os.ErrDeadlineExceeded
	}
	if w.gone() {
		return syscall.EPIPE
	}
	w.out.waitForRoom()
	return nil
}

// gone says whether the other side has closed the connection altogether.
func (w *Writer) gone() (gone bool) {
	err := w.sock.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		unix.Poll(p, 0)
		gone = p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone || err != nil
}

// ringBell wakes the other side for what has been put in since the last time.
func (w *Writer) ringBell() error {
	d := w.due
	w.due = due{}
	if !d.some {
		return nil
	}
	return w.wake(d.answers)
}

// wake wakes the other side, if it sleeps for such.
func (w *Writer) wake(answers bool) error {
	if !w.out.wakes(answers) {
		return nil
	}
	var err error
	if closed := w.sock.Control(func(fd uintptr) {
		// There is always room for one byte, or bells that have not been heard: one is sent for each time that the other side has
		// gone to sleep.
		err = unix.Send(int(fd), lineFeed, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}); closed != nil {
		err = closed
	}
	if err == unix.EAGAIN {
		err = nil
	}
	if err != nil {
		w.err = fmt.Errorf("wake the caller: %w", err)
	}
	return err
}

// Close makes all later Writes fail. It closes nothing else.
func (w *Writer) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = errClosed
	}
}
