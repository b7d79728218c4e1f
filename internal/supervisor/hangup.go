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

// hasHungUp says whether the caller has closed its end of the connection.
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

// untilHangup watches the connection in a goroutine. It returns a context that ends when the caller
// hangs up, and a function that ends the goroutine. The function must be called before the
// connection is closed. No byte is read. A caller that has shut down only its sending side has not
// hung up.
func untilHangup(ctx context.Context, conn *net.UnixConn) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	raw, err := conn.SyscallConn()
	if err != nil {
		return ctx, func() { cancel(nil) }
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// raw.Read calls hungUp at each event of the connection, until hungUp returns true.
		// The deadline below ends raw.Read, too.
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
