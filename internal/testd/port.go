package testd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"

	"tlsd/internal/testkit"
)

// AwaitListener waits until a program listens on a port of this machine. It reads the kernel's
// tables and does not connect, so the server does not notice.
func AwaitListener(tb testing.TB, port int) {
	tb.Helper()
	testkit.Until(tb, "a listener on port "+strconv.Itoa(port), func() bool {
		return Listening(tb, port)
	})
}

// Listening says whether a program listens on a port of this machine.
func Listening(tb testing.TB, port int) bool {
	tb.Helper()
	wanted := fmt.Sprintf("%04X", port)
	return hasSocket(tb, func(local, _, state string) bool {
		return state == "0A" && local == wanted
	})
}

// Connected says whether a socket with these ports is connected, or still in the course of its
// closing. After a reset it is neither.
func Connected(tb testing.TB, local, remote int) bool {
	tb.Helper()
	wanted := fmt.Sprintf("%04X %04X", local, remote)
	return hasSocket(tb, func(l, r, _ string) bool { return l+" "+r == wanted })
}

// hasSocket says whether the kernel has a TCP socket that the function wanted accepts. It calls
// wanted with the ports and the state of each socket, in the hexadecimal form of proc(5). It reads
// the table of IPv6, too, because a listener for all addresses of IPv4 and IPv6 is only there.
func hasSocket(tb testing.TB, wanted func(local, remote, state string) bool) bool {
	tb.Helper()
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		testkit.Must(tb, err)
		for line := range strings.Lines(string(table)) {
			f := strings.Fields(line) // sl local_address rem_address st …
			if len(f) < 4 {
				continue
			}
			_, local, _ := strings.Cut(f[1], ":")
			_, remote, _ := strings.Cut(f[2], ":")
			if wanted(local, remote, f[3]) {
				return true
			}
		}
	}
	return false
}
