package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// SystemSockets are the sockets of a tlsd that serves the whole machine. The first is the default.
// The second is for systemd's RuntimeDirectory=.
var SystemSockets = []string{"/run/tlsd.sock", "/run/tlsd/tlsd.sock"}

// maxSocketPath is the size of sockaddr_un.sun_path, less its NUL; unix(7).
const maxSocketPath = 107

// DefaultSockets returns the sockets at which a tlsd may listen, in the order in which they are
// tried. The plugin tries the same sockets. conf has the settings of the configuration file. The
// first rule that fits decides:
//
//   - $TLSD_SOCKET is set: this socket alone.
//   - conf has a socket: this socket. If conf has autostart = yes, the private socket follows.
//   - $XDG_RUNTIME_DIR is usable: its tlsd.sock, and then SystemSockets.
//   - Otherwise: SystemSockets, and then the private socket.
//
// The private socket is tlsd.sock in $XDG_RUNTIME_DIR, if this directory is usable, or else
// /tmp/tlsd-UID/tlsd.sock. The plugin starts a private daemon there. An empty variable counts as
// not set. Programs pass the function Getenv and the result of ReadConf.
func DefaultSockets(getenv func(string) string, conf Conf) []string {
	if path := getenv("TLSD_SOCKET"); path != "" {
		return []string{path}
	}
	own := filepath.Join(privateDir(), "tlsd.sock")
	dir := getenv("XDG_RUNTIME_DIR")
	if UsableRuntimeDir(dir) == nil {
		own = filepath.Join(dir, "tlsd.sock")
	} else {
		dir = ""
	}
	switch {
	case conf.Socket != "" && conf.Autostart == "yes":
		return []string{conf.Socket, own}
	case conf.Socket != "":
		return []string{conf.Socket}
	case dir != "":
		return append([]string{own}, SystemSockets...)
	}
	return append(slices.Clone(SystemSockets), own)
}

// UsableRuntimeDir returns why a runtime directory cannot be used, or nil. If stat(2) fails, for
// example because the directory does not exist, the result is nil: Dial will report the error.
func UsableRuntimeDir(dir string) error {
	// "All paths set in these environment variables must be absolute", XDG Base Directory
	// Specification. A relative path is ignored.
	if !filepath.IsAbs(dir) {
		return errors.New("it is not absolute")
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; int(uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d, not to you (user %d)", uid, os.Geteuid())
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("its mode is %04o: other users can write to it",
			info.Mode().Perm())
	}
	return nil
}

// privateDir is the directory of the private daemon of a user without a usable runtime directory.
func privateDir() string { return fmt.Sprintf("/tmp/tlsd-%d", os.Geteuid()) }

// checkPrivateDir fails if another user could have made a socket in dir. A missing dir is no error.
func checkPrivateDir(dir string) error {
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s: is no directory", dir)
	case int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid():
		return fmt.Errorf("%s: belongs to another user", dir)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s: is open to other users; its mode must be 0700", dir)
	}
	return nil
}

// DialFirst dials the sockets in order. It returns the client of the first socket that answers, and
// the socket's path. If none of them answers, or if ctx ends before, the error is a *NoDaemonError.
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

// A NoDaemonError says that no tlsd answers, and what was tried.
type NoDaemonError struct {
	Tried []Attempt // in the order of the attempts
}

// An Attempt is one socket that did not answer.
type Attempt struct {
	Path string
	Err  error // from Dial
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
