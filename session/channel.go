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

// The worker's end of a data channel. The caller made the socket pair, so nothing about it is believed:
//
//   - It must be a connected stream socket. A listening one is refused.
//   - The caller may hold a duplicate and change its flags. So every call says MSG_DONTWAIT, and the netpoller does the
//     waiting. Bytes that the caller takes away through a duplicate are the caller's own loss.
//   - The caller may hold a duplicate for ever. So the end of a direction is told by shutdown(2), which is for all
//     duplicates, and not by close(2).
//
// On Linux, bytes that were sent before a shutdown(SHUT_RD) can still be read. Package session uses that as a fence: what
// was sent before it is carried out, and what is sent after it fails at once with EPIPE.

// pieceBytes is the most that is taken from a channel at once. The write timeout is for so many bytes.
const pieceBytes = 64 << 10

// piece is memory for bytes on their way from a channel to the peer.
type piece [pieceBytes]byte

var pieces = sync.Pool{New: func() any { return new(piece) }}

// channel is the worker's end. One goroutine receives and one sends.
type channel struct {
	conn *net.UnixConn
	raw  syscall.RawConn

	receive, send func(fd uintptr) bool // of the RawConn; made once, so that a call allocates nothing

	// The receiving goroutine's.
	got    *piece
	gotN   int
	gotErr error
	// The sending goroutine's.
	rest    []byte
	sent    int
	sendErr error
}

// newChannel checks what the caller has sent. It does not own conn if it fails.
func newChannel(conn *net.UnixConn) (*channel, *Error) {
	raw, err := conn.SyscallConn()
	if err == nil {
		err = channelFit(raw)
	}
	if err != nil {
		return nil, fail(kind.Params, "the descriptor that came with the call cannot be a data channel: %v; send one end of "+
			"socketpair(AF_UNIX, SOCK_STREAM)", err)
	}
	ch := &channel{conn: conn, raw: raw}
	ch.receive, ch.send = ch.tryReceive, ch.trySend
	return ch, nil
}

// channelFit says why a socket cannot be a data channel.
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

// take waits for bytes from the caller. Whoever gets a piece gives it back to pieces. There is none when the
// caller sends no more; os.ErrDeadlineExceeded says that interrupt has ended the wait.
func (ch *channel) take() (*piece, int, error) {
	if err := ch.raw.Read(ch.receive); err != nil {
		return nil, 0, err
	}
	p := ch.got
	ch.got = nil
	return p, ch.gotN, ch.gotErr
}

// tryReceive takes memory only for the attempt, so that any number of channels can wait without.
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

// put sends all of data to the caller, and waits for room as long as that takes. n bytes have gone.
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

// closed says whether the caller has closed its end. After a shutdown of our sending side it cannot be told
// from a shutdown of the caller's.
func (ch *channel) closed() bool {
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

// left says whether there are bytes of the caller that nobody has taken.
func (ch *channel) left() bool {
	n := 0
	ch.raw.Control(func(fd uintptr) { n, _ = receive(fd, make([]byte, 1), unix.MSG_PEEK) })
	return n > 0
}

// fence makes what the caller sends from now on fail. What it has sent before can still be taken; then comes the end.
func (ch *channel) fence() { _ = ch.conn.CloseRead() }

// discard throws away what the caller has sent, behind a fence. Closed with that unread, the channel would look
// broken to the caller (ECONNRESET).
func (ch *channel) discard() {
	p := pieces.Get().(*piece)
	defer pieces.Put(p)
	ch.raw.Control(func(fd uintptr) {
		for n := 1; n > 0; {
			n, _ = receive(fd, p[:], 0)
		}
	})
}

// finish tells the caller that no more bytes come.
func (ch *channel) finish() { _ = ch.conn.CloseWrite() }

// interrupt ends the waits on the channel, those to come as well.
func (ch *channel) interrupt() { _ = ch.conn.SetDeadline(time.Unix(1, 0)) }

func (ch *channel) close() { closeChannel(ch.conn) }

// closeChannel ends a channel, whoever else holds a duplicate of it.
func closeChannel(conn *net.UnixConn) {
	_ = conn.CloseRead() // an error says that it is not connected
	_ = conn.CloseWrite()
	_ = conn.Close()
}

// callerGone says whether an error of a channel means that the caller takes or sends no more.
func callerGone(err error) bool {
	return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

// interrupted says whether an error is the doing of interrupt.
func interrupted(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed)
}
