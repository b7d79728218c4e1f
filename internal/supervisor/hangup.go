package supervisor

import (
	"context"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// errHungUp ends the admission of a caller that has hung up.
var errHungUp = errors.New("the caller has hung up")

// hasHungUp says whether the caller has closed its side.
func hasHungUp(conn *net.UnixConn) (left bool) {
	if raw, err := conn.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { left = hungUp(fd) })
	}
	return left
}

func hungUp(fd uintptr) bool {
	poll := []unix.PollFd{{Fd: int32(fd)}} // POLLHUP and POLLERR are always reported
	n, _ := unix.Poll(poll, 0)
	return n > 0
}

// untilHangup gives a context that ends when the caller hangs up. It reads nothing from the
// connection. A caller that has shut down only its sending side has not hung up. The function that
// untilHangup returns ends the watch. It must be called before the connection is closed.
func untilHangup(ctx context.Context, conn *net.UnixConn) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	raw, err := conn.SyscallConn()
	if err != nil {
		return ctx, func() { cancel(nil) }
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// Read calls hungUp after each event of the connection, until the deadline.
		err := raw.Read(hungUp)
		if err == nil {
			cancel(errHungUp)
		}
	}()
	return ctx, func() {
		conn.SetReadDeadline(time.Unix(1, 0))
		<-ended
		conn.SetReadDeadline(time.Time{})
		cancel(nil)
	}
}
