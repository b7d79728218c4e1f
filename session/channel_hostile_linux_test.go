package session_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testkit"
	"tlsd/session"
)

// A data channel is a pair of sockets: one end is the caller's, the other one is the worker's. A
// caller may keep a duplicate of the worker's end, and do with the duplicate what it likes. Only
// the caller's own bytes may suffer from what it does.

// hostile returns a data channel whose caller has a duplicate of the worker's end.
func (r *rig) hostile(port int) (h session.Handle, caller *net.UnixConn, dup int) {
	r.t.Helper()
	h = r.handle(r.NewClient("localhost", port))
	caller, worker := pair(r.t)
	raw, err := worker.SyscallConn()
	if err != nil {
		r.t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { unix.Close(dup) })
	r.ok(r.Session.Handshake(h, worker))
	return h, caller, dup
}

// echoedBytes is the number of bytes that echoes sends.
const echoedBytes = 300000

// echoes checks that the channel's peer sends all bytes back.
func echoes(t *testing.T, c net.Conn) {
	t.Helper()
	data := random(echoedBytes)
	go c.Write(data)
	if got := receive(t, c, len(data)); !bytes.Equal(got, data) {
		t.Error("the bytes that came back differ from the bytes sent")
	}
}

// TestNothingWaitsOnAChannelWhoseFlagsTheCallerChanges: the caller makes the socket blocking. A
// Close still returns, and the session can still be ended.
func TestNothingWaitsOnAChannelWhoseFlagsTheCallerChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h, c, dup := r.hostile(r.echo())
	blocking := func() {
		if err := unix.SetNonblock(dup, false); err != nil {
			t.Fatal(err)
		}
	}
	blocking()
	echoes(t, c)
	blocking()
	_, unread, dup2 := r.hostile(r.serve(func(c *tls.Conn, _ *net.TCPConn) {
		c.Write(make([]byte, 16<<20))
	}))
	unix.SetNonblock(dup2, false)
	receive(t, unread, 1) // and no more, so the pump from the peer to the caller waits for room
	r.ok(r.Close(h))
	r.gone()
	rest(t, unread) // the caller sees the end, although the duplicate is still open
}

// TestAChannelWhoseFlagsTheCallerChangesTakesNoThread: on a socket that the caller has made
// blocking, the wait for the caller takes no thread. The test counts threads, so it is not
// parallel.
func TestAChannelWhoseFlagsTheCallerChangesTakesNoThread(t *testing.T) {
	r := newRig(t)
	port := r.echo()
	const channels = 100
	before := threads(t)
	for range channels {
		_, c, dup := r.hostile(port)
		unix.SetNonblock(dup, false)
		send(t, c, []byte("x"))
		receive(t, c, 1)
	}
	if n := threads(t) - before; n > channels/2 {
		t.Errorf("the process has %d more threads after %d channels were opened, want "+
			"at most half as many", n, channels)
	}
	r.gone()
}

func threads(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Skip(err)
	}
	return len(list)
}

func TestACallerThatTakesItsOwnBytesAwayHarmsNobodyElse(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h, c, dup := r.hostile(r.echo())
	other, d := r.channel(r.echo())
	stolen := make(chan struct{})
	go func() {
		defer close(stolen)
		p := make([]byte, 1000)
		for range 1000 {
			unix.Recvfrom(dup, p, unix.MSG_DONTWAIT|unix.MSG_PEEK)
			unix.Recvfrom(dup, p, unix.MSG_DONTWAIT)
			// The socket's other end is the caller's, so only the caller receives these
			// bytes.
			unix.SendmsgN(dup, p, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}
	}()
	go io.Copy(io.Discard, c)
	for range 100 {
		send(t, c, random(1000))
	}
	await(t, stolen, "the thief")
	echoes(t, d)
	r.ok(r.Close(h))
	r.ok(r.Close(other))
	r.gone()
}

// TestACallerMayShutDownTheWorkersEnd: a shutdown of reading looks to the worker like one of the
// caller's sending: the peer gets close_notify. After a shutdown of writing, the worker still
// carries the caller's bytes to the peer. A shutdown of both looks like a close. In no case does a
// direction fail, and other connections go on.
func TestACallerMayShutDownTheWorkersEnd(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		how         int
		send        error // of the caller's next send
		read, write string
		sent        int64
	}{
		"reading": {unix.SHUT_RD, unix.EPIPE, "end", "shut", echoedBytes},
		"writing": {unix.SHUT_WR, nil, "open", "open", echoedBytes + 1},
		"both":    {unix.SHUT_RDWR, unix.EPIPE, "open", "open", echoedBytes},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			_, other := r.channel(r.echo())
			h, caller, dup := r.hostile(r.echo())
			echoes(t, caller)
			if err := unix.Shutdown(dup, c.how); err != nil {
				t.Fatal(err)
			}
			if _, err := caller.Write([]byte("x")); !errors.Is(err, c.send) {
				t.Errorf("the caller's send returns the error %v, want %v", err,
					c.send)
			}
			if got := rest(t, caller); len(got) > 0 {
				t.Errorf("the caller reads %.100q, want the end", got)
			}
			want := session.Status{Read: c.read, Write: c.write,
				Received: echoedBytes, Sent: c.sent}
			var got session.Status
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("the status is %+v, want %+v", got, want)
				}
			})
			testkit.Until(t, "the status is as wanted", func() bool {
				got = r.status(h)
				return got == want
			})
			echoes(t, other)
			r.ok(r.Close(h))
			r.gone()
		})
	}
}

func TestAChannelWithTinyBuffersWorks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h, c, dup := r.hostile(r.echo())
	raw, _ := c.SyscallConn()
	raw.Control(func(fd uintptr) {
		for _, fd := range []int{int(fd), dup} {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1)
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
		}
	})
	echoes(t, c)
	r.ok(r.Close(h))
}

func TestAChannelWhoseCallerIsGoneBeforeTheHandshake(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	port, got := r.sink()
	h := r.handle(r.NewClient("localhost", port))
	c, worker := pair(t)
	send(t, c, []byte("last will"))
	c.Close()
	r.ok(r.Session.Handshake(h, worker))
	r.ok(r.Close(h))
	want(t, got, "last will|cut")
}

// TestDescriptorsInTheBytesOfAChannelAreNotTaken: the worker ignores descriptors, credentials and
// urgent bytes that the caller sends. The test counts descriptors, so it is not parallel.
func TestDescriptorsInTheBytesOfAChannelAreNotTaken(t *testing.T) {
	r := newRig(t)
	h, c, dup := r.hostile(r.echo())
	unix.SetsockoptInt(dup, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	echoes(t, c)
	before := descriptors(t)
	fds := make([]int, 253) // no message can carry more (SCM_MAX_FD)
	for i := range fds {
		fds[i] = int(null.Fd())
	}
	for range 50 {
		_, _, err := c.WriteMsgUnix([]byte("x"), unix.UnixRights(fds...), nil)
		if err != nil {
			t.Fatal(err)
		}
		receive(t, c, 1)
	}
	if n := descriptors(t); n > before+10 {
		t.Errorf("the worker must take no descriptor from the channel; the process has "+
			"%d descriptors now, and had %d before", n, before)
	}
	raw, _ := c.SyscallConn()
	raw.Control(func(fd uintptr) {
		unix.SendmsgN(int(fd), []byte("u"), nil, nil, unix.MSG_OOB)
	})
	r.ok(r.Close(h))
	r.gone()
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(list)
}

// TestADuplicateOfTheCallersEndKeepsNothing: the caller closes its descriptor, but has a duplicate.
// The duplicate still works. tls.Close then ends the channel, although the duplicate is open.
func TestADuplicateOfTheCallersEndKeepsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h, c := r.channel(r.echo())
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	dup := testkit.UnixConn(t, f)
	dup.SetDeadline(time.Now().Add(testkit.Patience))
	c.Close()
	echoes(t, dup)
	r.ok(r.Close(h))
	connClosed(t, dup)
	r.gone()
}
