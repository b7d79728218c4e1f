package testd

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tlsd/internal/sockets"
)

// Port returns a TCP port of 127.0.0.1 on which nobody listens, and which no other program gets by
// chance until the end of the test. A socket is bound to it and does not listen. A program that
// sets SO_REUSEADDR, as Go and openssl do, can listen on the port (socket(7)). Until then
// connections are refused.
func Port(tb testing.TB) int {
	tb.Helper()
	fd, err := sockets.New(unix.AF_INET, unix.SOCK_STREAM)
	check(tb, err)
	tb.Cleanup(func() { unix.Close(fd) })
	check(tb, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	check(tb, unix.Bind(fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr("127.0.0.1").As4()}))
	name, err := unix.Getsockname(fd)
	check(tb, err)
	return name.(*unix.SockaddrInet4).Port
}

// AwaitListener waits until a program listens on a port of this machine. It looks and does not
// connect, so the server sees nothing of it.
func AwaitListener(tb testing.TB, port int) {
	tb.Helper()
	Eventually(tb, startTime, "a listener on port "+strconv.Itoa(port), func() bool {
		return Listening(tb, port)
	})
}

// Listening says whether a program listens on a port of this machine. A listener for all addresses,
// IPv4's included, may be only in IPv6's table.
func Listening(tb testing.TB, port int) bool {
	tb.Helper()
	suffix := fmt.Sprintf(":%04X", port)
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		check(tb, err)
		for line := range strings.Lines(string(table)) {
			f := strings.Fields(line) // sl local_address rem_address st …; proc(5)
			if len(f) > 3 && f[3] == "0A" && strings.HasSuffix(f[1], suffix) {
				return true
			}
		}
	}
	return false
}
