package supervisor

import (
	"context"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// errLeft is why nothing more is done for a caller.
var errLeft = errors.New("the caller has hung up")

// hasHungUp says whether the caller has closed its side.
func hasHungUp(conn *net.UnixConn) (left bool) {
	if raw, err := conn.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { left = hungUp(fd) })
	}
	return left
}

func hungUp(fd uintptr) bool {
	poll := []unix.PollFd{{Fd: int32(fd)}} // with POLLHUP and POLLERR
	n, _ := unix.Poll(poll, 0)
	return n > 0
}

// whileThere gives a context that ends when the caller hangs up. Nothing of what it has sent is
// read. A caller that has shut down its sending side alone is there. The function ends the watch,
// and has to be called before the connection is closed.
func whileThere(ctx context.Context, conn *net.UnixConn) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	raw, err := conn.SyscallConn()
	if err != nil {
		return ctx, func() { cancel(nil) }
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// The function is asked again whenever anything happens to the connection, until
		// the deadline.
		err := raw.Read(hungUp)
		if err == nil {
			cancel(errLeft)
		}
	}()
	return ctx, func() {
		conn.SetReadDeadline(time.Unix(1, 0))
		<-ended
		conn.SetReadDeadline(time.Time{})
		cancel(nil)
	}
}
