package testkit

import (
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Unread returns the number of bytes that the peer has sent and that no Read has taken yet.
func Unread(tb testing.TB, conn *net.UnixConn) int {
	tb.Helper()
	return Queue(tb, conn, unix.SIOCINQ)
}

// Queue returns the length of a queue of a socket, in bytes. The request SIOCINQ means the queue of
// received bytes. SIOCOUTQ means the queue of bytes to send (tcp(7), unix(7)).
func Queue(tb testing.TB, conn syscall.Conn, request uint) (n int) {
	tb.Helper()
	raw, err := conn.SyscallConn()
	Must(tb, err)
	var failed error
	Must(tb, raw.Control(func(fd uintptr) {
		n, failed = unix.IoctlGetInt(int(fd), request)
	}))
	Must(tb, failed)
	return n
}

// FullQueue returns the number of bytes that fit in a Unix stream socket if a program writes pieces
// of this size and its peer reads nothing. The kernel counts its memory for each piece, too.
func FullQueue(tb testing.TB, piece int) (n int) {
	tb.Helper()
	from, _ := SocketPair(tb, syscall.SOCK_STREAM)
	fd := int(from.Fd())
	Must(tb, unix.SetNonblock(fd, true))
	for buf := make([]byte, piece); ; {
		m, err := unix.Write(fd, buf)
		if err == unix.EAGAIN {
			return n
		}
		Must(tb, err)
		n += m
	}
}
