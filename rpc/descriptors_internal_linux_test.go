package rpc

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/rpc/wire"
	"tlsd/session"
)

// A sender has both ends of a connection. It sends lines and file descriptors on one end. It
// receives both on the other end, with a value d of the type "descriptors", which this file tests.
type sender struct {
	t    testing.TB
	to   *net.UnixConn // the sending end
	from *net.UnixConn // the receiving end
	d    descriptors   // the descriptors that have come
	r    *wire.Reader
}

func newSender(t testing.TB) *sender {
	a, b := testkit.SocketPair(t, unix.SOCK_STREAM)
	s := &sender{t: t, to: testkit.UnixConn(t, a), from: testkit.UnixConn(t, b)}
	s.r = wire.NewReader(s, 1<<20)
	t.Cleanup(s.d.close)
	return s
}

func (s *sender) Read(p []byte) (int, error) { return s.d.receive(s.from, p) }

// send sends text, and with its first byte as many descriptors as count says. Each descriptor is
// one end of a socket pair. send returns the other ends.
func (s *sender) send(text string, count int) (others []*os.File) {
	s.t.Helper()
	var mine []*os.File
	var fds []int
	for range count {
		a, b := testkit.SocketPair(s.t, unix.SOCK_STREAM)
		others, mine = append(others, a), append(mine, b)
		fds = append(fds, int(b.Fd()))
	}
	var rights []byte
	if count > 0 {
		rights = unix.UnixRights(fds...)
	}
	n, _, err := s.to.WriteMsgUnix([]byte(text), rights, nil)
	if err != nil || n != len(text) {
		s.t.Fatalf("sent %d bytes of %d: %v", n, len(text), err)
	}
	for _, f := range mine {
		f.Close()
	}
	return others
}

// take reads the next message and calls beginMessage. The message must be equal to the parameter
// text.
func (s *sender) take(text string) {
	s.t.Helper()
	line, err := s.r.Line()
	if err != nil || string(line) != text {
		s.t.Fatalf("the next message is %q, %v; want %q", line, err, text)
	}
	s.d.beginMessage(s.r.Start())
}

// isChannel takes the oldest descriptor that waits for a call, and checks that this descriptor is
// the other end of f.
func (s *sender) isChannel(f *os.File) {
	s.t.Helper()
	c, err := s.d.channel()
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("!"))
	if got := make([]byte, 1); !isReadable(s.t, f) || readOne(f, got) != "!" {
		s.t.Error("the call has got another descriptor: a byte that was written to it " +
			"has not come to the other end of the pair that was sent with the call")
	}
}

func readOne(f *os.File, p []byte) string {
	n, _ := f.Read(p)
	return string(p[:n])
}

// isReadable says whether a Read of f would return at once, with bytes or with io.EOF.
func isReadable(t testing.TB, f *os.File) bool {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
	if _, err := unix.Poll(p, 0); err != nil {
		t.Fatal(err)
	}
	return p[0].Revents != 0
}

// areClosed checks that no process has the other end of any of these sockets open.
func areClosed(t testing.TB, others ...*os.File) {
	t.Helper()
	for i, f := range others {
		p := []unix.PollFd{{Fd: int32(f.Fd())}}
		if _, err := unix.Poll(p, 0); err != nil || p[0].Revents&unix.POLLHUP == 0 {
			t.Errorf("tlsd has descriptor %d of %d still open, want all closed", i+1,
				len(others))
		}
	}
}

// hasNone checks that no descriptor waits for a call.
func (s *sender) hasNone() {
	s.t.Helper()
	_, err := s.d.channel()
	var e *session.Error
	if !errors.As(err, &e) || e.Kind != kind.Limit ||
		!strings.Contains(e.Why, "RLIMIT_NOFILE") {
		s.t.Errorf("a call without a descriptor gets %v, want an error of kind limit that "+
			"names RLIMIT_NOFILE", err)
	}
}

// A call gets the descriptor that came with its line. A line without a descriptor gets none.
func TestDescriptorsGoToTheCallsThatTheyCameWith(t *testing.T) {
	t.Parallel()
	s := newSender(t)
	one := s.send("one\n", 1)
	s.send("none\n", 0)
	two := s.send("two\n", 1)
	three := s.send("three\nbehind three\n", 1)
	s.take("one")
	s.isChannel(one[0])
	s.take("none")
	s.take("two")
	s.isChannel(two[0])
	s.take("three")
	s.isChannel(three[0])
	s.take("behind three")
	s.hasNone()
}

// A line that comes in two pieces gets the descriptor that came with its first byte.
func TestADescriptorArrivesWithALineThatComesInPieces(t *testing.T) {
	t.Parallel()
	const text = "line\n"
	for cut := 1; cut < len(text); cut++ {
		s := newSender(t)
		s.send("before\n", 0)
		f := s.send(text[:cut], 1)
		s.take("before")
		s.send(text[cut:]+"after\n", 0)
		s.take("line")
		s.isChannel(f[0])
		s.take("after")
		s.hasNone()
	}
}

// A line that takes many reads gets the descriptor that came with its first byte. The next line
// gets its own descriptor, although one read may return the end of the long line together with the
// beginning of the next.
func TestALineOfManyReadsKeepsItsDescriptor(t *testing.T) {
	t.Parallel()
	s := newSender(t)
	long := strings.Repeat("x", 100_000)
	sent := make(chan [2][]*os.File)
	go func() { sent <- [2][]*os.File{s.send(long+"\n", 1), s.send("next\n", 1)} }()
	s.take(long)
	f := <-sent
	s.isChannel(f[0][0])
	s.take("next")
	s.isChannel(f[1][0])
}

// Descriptors that the call of their line does not take are closed when the next message begins.
func TestSurplusDescriptorsAreClosedWithTheNextMessage(t *testing.T) {
	t.Parallel()
	s := newSender(t)
	surplus := s.send("one\n", 3)
	s.take("one")
	s.isChannel(surplus[0])
	mine := s.send("two\n", 1)
	s.take("two")
	areClosed(t, surplus...)
	s.isChannel(mine[0])
	unannounced := s.send("three\n", 1)
	s.take("three")
	s.send("four\n", 0)
	s.take("four")
	areClosed(t, unannounced...)
	s.hasNone()
}

// However many descriptors a caller sends, never more than maxDescriptors of them are open in tlsd.
func TestAFloodOfDescriptorsIsBounded(t *testing.T) {
	t.Parallel()
	t.Run("in one message", func(t *testing.T) {
		t.Parallel()
		s := newSender(t)
		all := s.send("line\n", 100) // more than there is room for, so none is taken
		s.take("line")
		areClosed(t, all...)
		s.hasNone()
	})
	t.Run("in one line", func(t *testing.T) {
		t.Parallel()
		s := newSender(t)
		var all []*os.File
		for range 10 {
			all = append(all, s.send("x", 10)...)
		}
		s.send("\n", 0)
		s.take(strings.Repeat("x", 10))
		if len(s.d.waiting) != maxDescriptors {
			t.Errorf("%d descriptors wait, want %d", len(s.d.waiting), maxDescriptors)
		}
		areClosed(t, all[maxDescriptors:]...)
		s.isChannel(all[0])
		s.d.close()
		areClosed(t, all...)
	})
}

// A received descriptor is close-on-exec, so a program that tlsd executes does not inherit it.
func TestDescriptorsAreClosedOnExec(t *testing.T) {
	t.Parallel()
	s := newSender(t)
	s.send("line\n", 1)
	s.take("line")
	flags, err := unix.FcntlInt(uintptr(s.d.waiting[0].fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("the descriptor has the flags %#x, %v; want FD_CLOEXEC", flags, err)
	}
}

// Only an end of a pair of Unix stream sockets can be a data channel. Any other descriptor is
// refused and closed.
func TestOnlyAPairOfUnixStreamSocketsIsAChannel(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(flags int) int {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	socket := func(domain, typ int) int {
		fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	for name, c := range map[string]struct {
		fd  int
		why string
	}{
		"a file":            {open(unix.O_RDWR), "is no socket"},
		"a path":            {open(unix.O_PATH), "is no socket"},
		"a datagram socket": {dupOf(t, unix.SOCK_DGRAM), "is no stream socket"},
		"a packet socket":   {dupOf(t, unix.SOCK_SEQPACKET), "is no stream socket"},
		"a lonely socket": {socket(unix.AF_UNIX, unix.SOCK_STREAM),
			"is not connected"},
		"a lonely TCP socket": {socket(unix.AF_INET, unix.SOCK_STREAM),
			"is not connected"},
		"a listening socket":     {listening(t), "is not connected"},
		"a connected TCP socket": {connectedTCP(t), "is no Unix socket"},
		"a caller's own end": {connected(t),
			"has been connected to a socket with a name"},
		"a socket with others": {loaded(t), "has descriptors in its queue"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var before unix.Stat_t
			unix.Fstat(c.fd, &before)
			d := descriptors{waiting: []descriptor{{c.fd, 1}}}
			conn, err := d.channel()
			var e *session.Error
			if !errors.As(err, &e) || e.Kind != kind.Params ||
				!strings.Contains(e.Why, "channel: the descriptor "+c.why) {
				t.Errorf("got %v, %v; want an error of kind params that says %q",
					conn, err, c.why)
			}
			var after unix.Stat_t
			if unix.Fstat(c.fd, &after) == nil && after.Ino == before.Ino &&
				after.Dev == before.Dev {
				t.Error("the descriptor was refused, but tlsd still has it open")
			}
		})
	}
}

// connected returns a socket that is connected to a listening socket. Such a socket is what a
// caller has after it has connected to tlsd.
func connected(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	l := listening(t)
	t.Cleanup(func() { unix.Close(l) })
	to, err := unix.Getsockname(l)
	if err == nil {
		err = unix.Connect(fd, to)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// loaded returns a socket. Its queue has 3,000 bytes, and behind them a descriptor.
func loaded(t *testing.T) int {
	t.Helper()
	a, b := testkit.SocketPair(t, unix.SOCK_STREAM)
	for range 3 {
		if _, err := a.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	own := int(a.Fd())
	if err := unix.Sendmsg(own, []byte("x"), unix.UnixRights(own), nil, 0); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(b.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func dupOf(t *testing.T, typ int) int {
	t.Helper()
	a, _ := testkit.SocketPair(t, typ)
	fd, err := unix.FcntlInt(a.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func listening(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(t.TempDir(), "s")})
	}
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func connectedTCP(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// FuzzDescriptors sends lines in small pieces, with up to two descriptors at each piece. Some lines
// take a descriptor: the second input chooses these lines. If a descriptor waits, such a line must
// get one. Never more than maxDescriptors wait, and at the end none is open.
func FuzzDescriptors(f *testing.F) {
	f.Add([]byte("a1b\n\x01c\n\x02\n"), []byte{1, 0, 2})
	f.Add([]byte("\n\n\x11x\ny"), []byte{0, 1})
	f.Add(bytes.Repeat([]byte{0x11}, 40), []byte{1})
	f.Fuzz(func(t *testing.T, pieces, takes []byte) {
		if len(pieces) > 64 {
			return
		}
		s := newSender(t)
		var all []*os.File
		// Each byte p makes one piece: the character with the code p. The remainder p%3
		// says how many descriptors come with it.
		for _, p := range pieces {
			all = append(all, s.send(string(p), int(p%3))...)
		}
		s.to.CloseWrite()
		for i := 0; ; i++ {
			if _, err := s.r.Line(); err != nil {
				break
			}
			s.d.beginMessage(s.r.Start())
			if len(s.d.waiting) > maxDescriptors {
				t.Fatalf("%d descriptors wait, want at most %d", len(s.d.waiting),
					maxDescriptors)
			}
			if len(takes) > 0 && takes[i%len(takes)]%2 == 1 && len(s.d.waiting) > 0 {
				c, err := s.d.channel()
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
			}
		}
		s.d.close()
		areClosed(t, all...)
	})
}
