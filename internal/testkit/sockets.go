package testkit

import (
	"net"
	"os"
	"syscall"
	"testing"

	"tlsd/internal/sockets"
)

// SocketPair makes a connected pair of Unix sockets of a type, such as syscall.SOCK_STREAM. The end
// of the test closes both.
func SocketPair(tb testing.TB, typ int) (a, b *os.File) {
	tb.Helper()
	fds, err := sockets.Pair(typ)
	Must(tb, err)
	a, b = os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b")
	tb.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// UnixConn returns a net.UnixConn with a duplicate of the Unix socket f, and closes f. The end of
// the test closes the connection.
func UnixConn(tb testing.TB, f *os.File) *net.UnixConn {
	tb.Helper()
	defer f.Close()
	c, err := net.FileConn(f)
	Must(tb, err)
	tb.Cleanup(func() { c.Close() })
	return c.(*net.UnixConn)
}

// UnixPair makes the two ends of a connection over Unix stream sockets.
func UnixPair(tb testing.TB) (a, b *net.UnixConn) {
	tb.Helper()
	f, g := SocketPair(tb, syscall.SOCK_STREAM)
	return UnixConn(tb, f), UnixConn(tb, g)
}
