package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Activated returns the listening socket that systemd has passed to this process
// (sd_listen_fds(3)), and unsets the environment variables that announce the socket. If there is
// none, it returns nil.
func Activated() (*Socket, error) {
	pid, n := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	if pid == "" || n == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	if n != "1" {
		return nil, fmt.Errorf("systemd passes %s sockets (LISTEN_FDS); tlsd serves one", n)
	}
	const first = 3 // SD_LISTEN_FDS_START
	if listens, err := unix.GetsockoptInt(first, unix.SOL_SOCKET,
		unix.SO_ACCEPTCONN); err != nil || listens == 0 {
		return nil, errors.New("descriptor 3, which systemd passes (LISTEN_FDS=1), is " +
			"not a listening socket")
	}
	f := os.NewFile(first, "socket of systemd")
	defer f.Close() // FileListener has a copy
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("the socket of systemd: %w", err)
	}
	ul, ok := l.(*net.UnixListener)
	if !ok || l.Addr().Network() != "unix" {
		l.Close()
		return nil, fmt.Errorf("the socket of systemd is %s %s, not a Unix stream socket "+
			"(ListenStream= with a path)", l.Addr().Network(), l.Addr())
	}
	ul.SetUnlinkOnClose(false)
	return &Socket{UnixListener: ul, Path: l.Addr().String()}, nil
}

// notifyTimeout limits the wait for a service manager that does not read.
const notifyTimeout = time.Second

// notify sends the daemon's state to the service manager (sd_notify(3)), if there is one.
func notify(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(notifyTimeout))
	_, err = conn.Write([]byte(state))
	return err
}
