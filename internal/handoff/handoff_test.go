package handoff

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tlsd/internal/testalloc"
)

// channel makes a channel between a supervisor and a worker. This process has both ends.
func channel(t *testing.T) (supervisor, worker *Conn) {
	t.Helper()
	supervisor, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	worker, err = open(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { supervisor.Close(); worker.Close() })
	return supervisor, worker
}

// accepted makes the connection of a caller. It returns the accepted end, and the caller's end.
func accepted(t *testing.T) (ours, callers *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"),
		Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	callers, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	ours, err = l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); callers.Close() })
	return ours, callers
}

func flags(t *testing.T, c *net.UnixConn) (nonblock, cloexec bool) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		fl, _ := unix.FcntlInt(fd, unix.F_GETFL, 0)
		fd2, _ := unix.FcntlInt(fd, unix.F_GETFD, 0)
		nonblock, cloexec = fl&unix.O_NONBLOCK != 0, fd2&unix.FD_CLOEXEC != 0
	})
	return nonblock, cloexec
}

// With the message that announces a session, a worker receives the caller's connection. The
// supervisor can then close its own copy.
func TestConnectionIsHandedOver(t *testing.T) {
	t.Parallel()
	sup, work := channel(t)
	ours, callers := accepted(t)
	if err := sup.Send(ToWorker{Session: &Session{Number: 7, Slot: 3, UID: 8, PID: 9}},
		ours); err != nil {
		t.Fatal(err)
	}
	if nonblock, _ := flags(t, ours); !nonblock {
		t.Error("the sender's connection has become blocking")
	}
	ours.Close()

	var msg ToWorker
	conn, err := work.ReceiveConn(&msg)
	if err != nil || conn == nil {
		t.Fatal("ReceiveConn returns", conn, err)
	}
	defer conn.Close()
	if *msg.Session != (Session{Number: 7, Slot: 3, UID: 8, PID: 9}) {
		t.Errorf("the worker receives the session %+v; want number 7, slot 3, user 8, "+
			"process 9", *msg.Session)
	}
	if nonblock, cloexec := flags(t, conn); !nonblock || !cloexec {
		t.Errorf("the received connection is non-blocking: %t, close-on-exec: %t; want "+
			"both", nonblock, cloexec)
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	conn.Close() // no other copy of this end is open, so the caller reads io.EOF
	if got, err := io.ReadAll(callers); string(got) != "hello" || err != nil {
		t.Errorf("the caller reads %q, %v; want hello, and then the end", got, err)
	}
}

// Each Receive returns one message, exactly as it was sent. Send refuses a message of more than
// MaxMessage bytes.
func TestMessagesKeepTheirBounds(t *testing.T) {
	t.Parallel()
	sup, work := channel(t)
	for n := range uint64(3) {
		if err := work.Send(FromWorker{Ended: &Ended{Number: n}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for n := range uint64(3) {
		var msg FromWorker
		if err := sup.Receive(&msg); err != nil || msg.Ended.Number != n {
			t.Fatalf("message %d is received as %+v, %v", n, msg, err)
		}
	}
	if err := sup.Send(ToWorker{Config: []byte(`"` + strings.Repeat("x", MaxMessage) + `"`)},
		nil); err == nil {
		t.Error("Send accepts a message of more than MaxMessage bytes")
	}
	if err := sup.Send(ToWorker{Config: []byte(`"` + strings.Repeat("x", MaxMessage-20) + `"`)},
		nil); err != nil {
		t.Error(err)
	}
	var msg ToWorker
	if err := work.Receive(&msg); err != nil || len(msg.Config) != MaxMessage-18 {
		t.Errorf("of a message that nearly has MaxMessage bytes, the field Config has %d "+
			"bytes, %v; want all bytes", len(msg.Config), err)
	}
}

// The memory that a receiver takes depends on the message, and not on MaxMessage.
func TestAShortMessageTakesLittleMemory(t *testing.T) {
	// Not parallel: it counts the process's allocations.
	sup, work := channel(t)
	for _, end := range []struct {
		name    string
		from    *Conn
		receive func() error
	}{
		{"Receive", work, func() error { return sup.Receive(new(FromWorker)) }},
		{"ReceiveConn", sup, func() error {
			_, err := work.ReceiveConn(new(ToWorker))
			return err
		}},
	} {
		if got := testalloc.PerCall(100, func() {
			if err := end.from.Send(map[string]int{}, nil); err != nil {
				t.Fatal(err)
			}
			if err := end.receive(); err != nil {
				t.Fatal(err)
			}
		}); got > MaxMessage/16 {
			t.Errorf("%s of a message of two bytes takes %d bytes of memory, want at "+
				"most a sixteenth of MaxMessage", end.name, got)
		}
	}
}

// After CloseSend, the receiver gets all messages that were sent before, and then io.EOF. The
// receiver itself can still send.
func TestEndIsSeenAfterTheLastMessage(t *testing.T) {
	t.Parallel()
	sup, work := channel(t)
	if err := sup.Send(ToWorker{Config: []byte(`1`)}, nil); err != nil {
		t.Fatal(err)
	}
	sup.CloseSend()
	var msg ToWorker
	if err := work.Receive(&msg); err != nil || string(msg.Config) != "1" {
		t.Fatal("the message before the end is received as", msg, err)
	}
	if _, err := work.ReceiveConn(&msg); !errors.Is(err, io.EOF) {
		t.Fatalf("after the last message: %v; want EOF", err)
	}
	if err := work.Send(FromWorker{Ready: &Ready{Backend: "x"}}, nil); err != nil {
		t.Fatal("the worker's last message cannot be sent:", err)
	}
	work.Close()
	var last FromWorker
	if err := sup.Receive(&last); err != nil || last.Ready.Backend != "x" {
		t.Fatal("the worker's last message is received as", last, err)
	}
	if err := sup.Receive(&last); !errors.Is(err, io.EOF) {
		t.Fatalf("after the last message: %v; want EOF", err)
	}
}

// raw sends a packet with descriptors, even if Send would refuse them.
func (c *Conn) raw(t *testing.T, packet string, fds ...int) {
	t.Helper()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := c.c.WriteMsgUnix([]byte(packet), oob, nil); err != nil {
		t.Fatal(err)
	}
}

// If a message cannot be read, or has wrong descriptors with it, ReceiveConn returns an error. No
// descriptor of the message stays open.
func TestStrangeMessagesAreErrorsAndLeaveNothingOpen(t *testing.T) {
	// Not parallel: it counts the process's descriptors.
	pipeR, pipeW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipeR.Close()
	defer pipeW.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	sup, work := channel(t)
	ours, _ := accepted(t)
	var sock, udpFD, tcpFD int
	raw, _ := ours.SyscallConn()
	raw.Control(func(fd uintptr) { sock = int(fd) })
	rawUDP, _ := udp.(*net.UDPConn).SyscallConn()
	rawUDP.Control(func(fd uintptr) { udpFD = int(fd) })
	rawTCP, _ := tcp.SyscallConn()
	rawTCP.Control(func(fd uintptr) { tcpFD = int(fd) })

	tests := []struct {
		name, packet string
		fds          []int
		want         string
	}{
		{"no JSON", "hello", nil, "cannot be read"},
		{"no JSON, with a connection", "hello", []int{sock}, "cannot be read"},
		{"wrong type", `{"session":1}`, nil, "cannot be read"},
		{"too long", `"` + strings.Repeat("x", MaxMessage) + `"`, nil, "longer than"},
		{"two connections", `{}`, []int{sock, sock}, "more than one"},
		{"many connections", `{}`, []int{sock, sock, sock, sock, sock}, "more than one"},
		{"a pipe", `{}`, []int{int(pipeR.Fd())}, "SO_DOMAIN"},
		{"a socket of the network", `{}`, []int{udpFD}, "not a Unix socket"},
		{"a stream socket of the network", `{}`, []int{tcpFD}, "not a Unix socket"},
	}
	before := openFiles(t)
	for _, tt := range tests {
		sup.raw(t, tt.packet, tt.fds...)
		var msg ToWorker
		conn, err := work.ReceiveConn(&msg)
		if err == nil || !strings.Contains(err.Error(), tt.want) || conn != nil {
			t.Errorf("%s: %v, %v; want an error with %q", tt.name, conn, err, tt.want)
		}
	}
	// The supervisor takes no descriptors from a worker.
	work.raw(t, `{"ended":{"number":1}}`, sock, sock)
	var msg FromWorker
	if err := sup.Receive(&msg); err != nil {
		t.Error(err)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors are open; %d before", after, before)
	}
}

// If a worker has too few free descriptors, ReceiveConn returns the message, and ErrNotTaken in
// place of the connection. As soon as descriptors are free, it returns connections again.
func TestWithoutAFreeDescriptorAConnectionIsNotTaken(t *testing.T) {
	// Not parallel: the limit is that of the process.
	sup, work := channel(t)
	ours, callers := accepted(t)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	free, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0) // the lowest free descriptor
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	before := openFiles(t)
	// With the first limit, no descriptor is free. With the second limit, one is free, but
	// ReceiveConn needs two for a moment.
	for number, limit := range []int{0, free + 1} {
		if err := sup.Send(ToWorker{Session: &Session{Number: uint64(number)}},
			ours); err != nil {
			t.Fatal(err)
		}
		lowered := old
		set(&lowered.Cur, limit)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lowered); err != nil {
			t.Fatal(err)
		}
		var msg ToWorker
		conn, err := work.ReceiveConn(&msg)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
		if conn != nil || !errors.Is(err, ErrNotTaken) || msg.Session == nil ||
			msg.Session.Number != uint64(number) {
			t.Errorf("with the limit %d, ReceiveConn returns %v, %v, and %+v; want "+
				"ErrNotTaken and the message", limit, conn, err, msg)
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors are open; %d before", after, before)
	}
	if err := sup.Send(ToWorker{Session: &Session{Number: 3}}, ours); err != nil {
		t.Fatal(err)
	}
	var msg ToWorker
	conn, err := work.ReceiveConn(&msg)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	ours.Close()
	if _, err := callers.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the caller's Read returns %v, want io.EOF: a copy of the accepted end "+
			"is still open", err)
	}
}

// set sets a limit. The fields of unix.Rlimit have the type int64 on some systems, and uint64 on
// the others.
func set[T int64 | uint64](limit *T, n int) { *limit = T(n) }

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// If nobody reads from a channel, TrySend sends as many messages as fit into it. Then TrySend fails
// with EAGAIN, and does not wait.
func TestTrySendDoesNotWait(t *testing.T) {
	t.Parallel()
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	sent := 0
	for err == nil {
		err = ours.TrySend(ToWorker{Ping: 1})
		sent++
	}
	if !errors.Is(err, unix.EAGAIN) || sent < 2 {
		t.Errorf("call %d of TrySend returns %v; want EAGAIN, and not at the first call",
			sent, err)
	}
}
