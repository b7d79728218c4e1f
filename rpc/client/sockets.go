package client

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// SystemSocket is where a tlsd that serves the whole machine listens.
const SystemSocket = "/run/tlsd.sock"

// maxSocketPath is the room of sockaddr_un.sun_path, less its NUL; unix(7).
const maxSocketPath = 107

// DefaultSockets gives the sockets at which a tlsd may listen, in the order in which they
// are to be tried; the plugin searches the same ones.
//
//   - $TLSD_SOCKET alone, if it is set; else
//   - $XDG_RUNTIME_DIR/tlsd.sock, if that variable is set to an absolute path, and SystemSocket; else
//   - SystemSocket, and /tmp/tlsd-UID/tlsd.sock, where the plugin starts a private
//     daemon if there is no runtime directory.
//
// A variable that is empty counts as not set. getenv is os.Getenv, but in tests.
func DefaultSockets(getenv func(string) string) []string {
	if path := getenv("TLSD_SOCKET"); path != "" {
		return []string{path}
	}
	// "All paths set in these environment variables must be absolute", XDG Base
	// Directory Specification; a relative one is ignored.
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return []string{filepath.Join(dir, "tlsd.sock"), SystemSocket}
	}
	return []string{SystemSocket, fmt.Sprintf("/tmp/tlsd-%d/tlsd.sock", os.Geteuid())}
}

// DialFirst dials the sockets in order and returns the client of the first that answers, and
// its path. If none does, or ctx ends before, the error is a *NoDaemonError.
func DialFirst(ctx context.Context, paths []string) (*Client, string, error) {
	none := &NoDaemonError{}
	for _, path := range paths {
		c, err := Dial(ctx, path)
		if err == nil {
			return c, path, nil
		}
		none.Tried = append(none.Tried, Attempt{path, err})
		if ctx.Err() != nil {
			break
		}
	}
	return nil, "", none
}

// NoDaemonError says that no tlsd answers, and what was tried.
type NoDaemonError struct {
	Tried []Attempt // in the order of the attempts
}

// Attempt is one socket that was tried in vain.
type Attempt struct {
	Path string
	Err  error // as of Dial
}

// Error names each socket and why it failed.
func (e *NoDaemonError) Error() string {
	var b strings.Builder
	b.WriteString("no tlsd answers")
	for i, a := range e.Tried {
		b.WriteString([]string{": ", "; "}[min(i, 1)])
		b.WriteString(a.Err.Error())
	}
	return b.String()
}

// Unwrap gives the errors of the attempts.
func (e *NoDaemonError) Unwrap() []error {
	errs := make([]error, len(e.Tried))
	for i, a := range e.Tried {
		errs[i] = a.Err
	}
	return errs
}
