package session

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/kind"
)

// The worker's end of a data channel. The caller has made the socket pair, so the worker does not
// trust it:
//
//   - The socket must be a connected stream socket. A listening one is refused.
//   - The caller may have a duplicate, and change the socket's flags. So every call has
//     MSG_DONTWAIT, and the netpoller does the waiting. A caller that reads from such a duplicate
//     steals only its own bytes.
//   - The caller may keep a duplicate open. So the worker ends a direction by shutdown(2), which
//     affects all duplicates. A close(2) would not end the direction while a duplicate is open.
//
// On Linux, bytes that were sent before a shutdown(SHUT_RD) can still be read. This package uses
// the shutdown as a fence: bytes that the caller sent before the fence can still be taken, and the
// caller's later sends fail with EPIPE.

// pieceBytes is the most that is taken from a channel at once. The write timeout limits how long
// the sending of one piece to the peer may take.
const pieceBytes = 64 << 10

// A piece is memory for bytes on their way from a channel to the peer.
type piece [pieceBytes]byte

var pieces = sync.Pool{New: func() any { return new(piece) }}

// A channel is the worker's end of a data channel. One goroutine receives and one sends.
type channel struct {
	conn *net.UnixConn
	raw  syscall.RawConn

	// The methods tryReceive and trySend, as arguments for raw. They are stored here, because
	// a new method value for each call would allocate memory.
	receive, send func(fd uintptr) bool

	// The results of tryReceive. Only the receiving goroutine uses them.
	got    *piece
	gotN   int // bytes in got
	gotErr error
	// The state of trySend. Only the sending goroutine uses it.
	rest    []byte // bytes that are still to be sent
	sent    int    // bytes that have been sent
	sendErr error
}

// newChannel checks the socket that came with a call, and makes a channel, which owns conn. If
// newChannel fails, it leaves conn open, and conn still belongs to the call.
func newChannel(conn *net.UnixConn) (*channel, *Error) {
	raw, err := conn.SyscallConn()
	if err == nil {
		err = channelFit(raw)
	}
	if err != nil {
		return nil, fail(kind.Params, "the descriptor that came with the call cannot be a "+
			"data channel: %v; send one end of socketpair(AF_UNIX, SOCK_STREAM)", err)
	}
	ch := &channel{conn: conn, raw: raw}
	ch.receive, ch.send = ch.tryReceive, ch.trySend
	return ch, nil
}

// channelFit says why a socket cannot be a data channel, or returns nil.
func channelFit(raw syscall.RawConn) error {
	var unfit error
	err := raw.Control(func(fd uintptr) {
		typ, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE)
		listens, err2 := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		_, err3 := unix.Getpeername(int(fd))
		switch {
		case err != nil || err2 != nil:
			unfit = errors.Join(err, err2)
		case typ != unix.SOCK_STREAM:
			unfit = errors.New("it is not a stream socket")
		case listens != 0:
			unfit = errors.New("it listens")
		case err3 != nil:
			unfit = errors.New("it is not connected")
		}
	})
	return errors.Join(err, unfit)
}

// take waits for bytes from the caller. It returns a piece, and how many bytes of it are used. The
// piece must be put back into the pool (the variable pieces) after use. If no more bytes come, the
// piece is nil, and the error says why:
//
//   - nil: the caller has closed its end, or has shut down its sending direction. After fence() the
//     error is also nil, when all bytes before the fence have been taken.
//   - An error for which interrupted() is true: interrupt() was called.
//   - Any other error comes from the socket.
func (ch *channel) take() (*piece, int, error) {
	if err := ch.raw.Read(ch.receive); err != nil {
		return nil, 0, err
	}
	p := ch.got
	ch.got = nil
	return p, ch.gotN, ch.gotErr
}

// tryReceive makes one attempt to receive. It returns false if it must be called again when the
// socket is readable. It takes memory only for the attempt, so that waiting channels have none.
func (ch *channel) tryReceive(fd uintptr) bool {
	p := pieces.Get().(*piece)
	n, err := receive(fd, p[:], 0)
	if n > 0 {
		ch.got, ch.gotN, ch.gotErr = p, n, nil
		return true
	}
	pieces.Put(p)
	ch.got, ch.gotN, ch.gotErr = nil, 0, err
	return err != unix.EAGAIN
}

// receive is recv(2) that cannot wait.
func receive(fd uintptr, p []byte, flags int) (int, error) {
	for {
		n, _, err := unix.Recvfrom(int(fd), p, flags|unix.MSG_DONTWAIT)
		if n > 0 {
			return n, nil
		}
		if err != unix.EINTR {
			return 0, err
		}
	}
}

// put sends all of data to the caller, and returns how many bytes it has sent. The caller may read
// as late as it likes, so put waits for room without a timeout.
func (ch *channel) put(data []byte) (n int, err error) {
	ch.rest, ch.sent, ch.sendErr = data, 0, nil
	err = ch.raw.Write(ch.send)
	ch.rest = nil
	if err == nil {
		err = ch.sendErr
	}
	return ch.sent, err
}

func (ch *channel) trySend(fd uintptr) bool {
	for len(ch.rest) > 0 {
		n, err := unix.SendmsgN(int(fd), ch.rest, nil, nil, unix.MSG_DONTWAIT|noSignal)
		switch {
		case n > 0:
			ch.rest = ch.rest[n:]
			ch.sent += n
		case err == unix.EAGAIN:
			return false
		case err != unix.EINTR:
			ch.sendErr = err
			return true
		}
	}
	return true
}

// callerClosed says whether the caller has closed its end, or has shut down both directions. After
// sendEnd, poll(2) reports the same if the caller has shut down only its sending direction. So the
// result is true in this case, too.
func (ch *channel) callerClosed() bool {
	gone := false
	ch.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		for {
			_, err := unix.Poll(p, 0)
			if err != unix.EINTR {
				gone = err != nil || p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
				return
			}
		}
	})
	return gone
}

// hasBytes says whether bytes of the caller wait in the channel.
func (ch *channel) hasBytes() bool {
	n := 0
	ch.raw.Control(func(fd uintptr) { n, _ = receive(fd, make([]byte, 1), unix.MSG_PEEK) })
	return n > 0
}

// fence makes the caller's later sends fail. Bytes before the fence can still be taken.
func (ch *channel) fence() { _ = ch.conn.CloseRead() }

// discard throws away the bytes that the caller sent before a fence. Then a caller that waits for
// room wakes up. Also, the close of the channel gives the caller no ECONNRESET, as it would with
// unread bytes.
func (ch *channel) discard() {
	p := pieces.Get().(*piece)
	defer pieces.Put(p)
	ch.raw.Control(func(fd uintptr) {
		for n := 1; n > 0; {
			n, _ = receive(fd, p[:], 0)
		}
	})
}

// sendEnd tells the caller that no more bytes come.
func (ch *channel) sendEnd() { _ = ch.conn.CloseWrite() }

// interrupt ends all waits on the channel, also later ones.
func (ch *channel) interrupt() { _ = ch.conn.SetDeadline(time.Unix(1, 0)) }

func (ch *channel) close() { closeChannel(ch.conn) }

// closeChannel ends a channel, also for holders of a duplicate.
func closeChannel(conn *net.UnixConn) {
	_ = conn.CloseRead() // an error says that the socket is not connected
	_ = conn.CloseWrite()
	_ = conn.Close()
}

// callerGone says whether the caller has caused the error of a channel: the caller has closed its
// end, or has shut down its receiving direction.
func callerGone(err error) bool {
	return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

// interrupted says whether this side has caused an error, by interrupt() or by close().
func interrupted(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed)
}
