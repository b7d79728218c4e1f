package session_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/kind"
	"tlsd/internal/sockets"
	"tlsd/internal/testkit"
)

// In these tests, a signal is the pair of sockets that a caller sends with tls.Signal. The caller's
// end is readable while a client waits for an Accept.

// readable says whether a descriptor is readable.
func readable(t *testing.T, c *net.UnixConn) (yes bool) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			if _, err = unix.Poll(p, 0); err != unix.EINTR {
				break
			}
		}
		yes = p[0].Revents != 0
	})
	if err != nil {
		t.Fatal(err)
	}
	return yes
}

// copyOf returns a duplicate of a socket.
func copyOf(t *testing.T, c *net.UnixConn) *net.UnixConn {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) })
	if err != nil {
		t.Fatal(err)
	}
	return unixConn(t, fd)
}

func TestASignalIsReadableExactlyWhileAClientWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, port := r.listener()
	r.arrival(port)
	r.waitFor(r.watch(ctx)) // the client comes before the signal
	polled, second := pair(t)
	r.ok(r.Signal(ctx, copyOf(t, polled), second))
	for clients := 1; clients < 4; clients++ {
		if !readable(t, polled) {
			t.Errorf("a client waits, but the signal is not readable")
		}
		r.arrival(port)
		for range 2 {
			testkit.Until(t, "the signal is readable, because a client waits",
				func() bool { return readable(t, polled) })
			r.ok(r.Accept(ctx, "", 0))
		}
		if readable(t, polled) {
			t.Errorf("no client waits, but the signal is readable")
		}
		r.arrival(port)
		testkit.Until(t, "the signal is readable, because a client waits",
			func() bool { return readable(t, polled) })
	}
	more, other := pair(t)
	e := r.fails(r.Signal(ctx, copyOf(t, more), other), kind.State)
	if !strings.Contains(e.Why, "has a pair of sockets already, from an earlier call") {
		t.Error(e)
	}
	if rest(t, more); readable(t, polled) != true {
		t.Error("the refused Signal has made the first pair unreadable, although a " +
			"client waits")
	}
	r.ok(r.CloseServerContext(ctx))
	testkit.Until(t, "the session closes the signal",
		func() bool { return len(rest(t, polled)) <= 1 })
}

// TestASignalThatIsNoneOrMisusedHarmsNothing: the session refuses sockets that cannot be a signal.
// A caller that misuses its signal harms nothing of the session.
func TestASignalThatIsNoneOrMisusedHarmsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, port := r.listener()
	a, b := pair(t)
	c, d := pair(t)
	unconnected, err := sockets.New(unix.AF_UNIX, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	r.fails(r.Signal(ctx, b, unixConn(t, unconnected)), kind.Params)
	rest(t, a) // the session has closed the other socket, too
	r.fails(r.Signal(99, c, d), kind.Handle)

	// The caller fills the pair, so that the session cannot write its byte. Then the caller
	// closes its ends. Each time, Accept still works.
	polled, second := pair(t)
	dup := copyOf(t, second)
	r.ok(r.Signal(ctx, copyOf(t, polled), second))
	dup.SetWriteDeadline(time.Now().Add(-time.Second))
	raw, _ := dup.SyscallConn()
	raw.Control(func(fd uintptr) {
		for {
			const flags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
			data := make([]byte, 4096)
			if _, err := unix.SendmsgN(int(fd), data, nil, nil, flags); err != nil {
				return
			}
		}
	})
	r.arrival(port)
	r.ok(r.Accept(ctx, "", 0))
	polled.Close()
	dup.Close()
	r.arrival(port)
	r.ok(r.Accept(ctx, "", 0))
}
