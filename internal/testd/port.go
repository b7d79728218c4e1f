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

// Listening says whether a program listens on a port of this machine. It reads the kernel's table
// of IPv6 too, because a listener for all addresses of IPv4 and IPv6 is only in that table.
func Listening(tb testing.TB, port int) bool {
	tb.Helper()
	suffix := fmt.Sprintf(":%04X", port)
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		testkit.Must(tb, err)
		for line := range strings.Lines(string(table)) {
			f := strings.Fields(line) // sl local_address rem_address st …; proc(5)
			if len(f) > 3 && f[3] == "0A" && strings.HasSuffix(f[1], suffix) {
				return true
			}
		}
	}
	return false
}
