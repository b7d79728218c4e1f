package session_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/sockets"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// pair makes a pair of sockets: the caller's end, and the worker's.
func pair(t *testing.T) (caller, worker *net.UnixConn) {
	t.Helper()
	caller, worker = testkit.UnixPair(t)
	caller.SetDeadline(time.Now().Add(testkit.Patience))
	return caller, worker
}

// unixConn returns a connection with a duplicate of the descriptor fd, and closes fd.
func unixConn(t *testing.T, fd int) *net.UnixConn {
	t.Helper()
	return testkit.UnixConn(t, os.NewFile(uintptr(fd), "socket"))
}

// channel returns a connection that has done its handshake, and the caller's end of its data
// channel.
func (r *rig) channel(port int) (session.Handle, *net.UnixConn) {
	r.t.Helper()
	h := r.handle(r.NewClient("localhost", port))
	caller, worker := pair(r.t)
	r.ok(r.Session.Handshake(h, worker))
	return h, caller
}

func (r *rig) status(h session.Handle) session.Status {
	r.t.Helper()
	return r.ok(r.Status(h)).(session.Status)
}

// send sends all of data, or fails the test.
func send(t *testing.T, c net.Conn, data []byte) {
	t.Helper()
	if n, err := c.Write(data); err != nil {
		t.Fatalf("%d of %d bytes sent: %v", n, len(data), err)
	}
}

// receive receives n bytes.
func receive(t *testing.T, c net.Conn, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	if got, err := io.ReadFull(c, p); err != nil {
		t.Fatalf("%d of %d bytes received: %v", got, n, err)
	}
	return p
}

// rest receives all bytes up to the end.
func rest(t *testing.T, c net.Conn) []byte {
	t.Helper()
	p, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("a Read after %d bytes fails with %v, want io.EOF", len(p), err)
	}
	return p
}

// unsendable waits until a send fails with EPIPE.
func unsendable(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, "a send on the data channel fails", func() bool {
		var err error
		raw.Control(func(fd uintptr) {
			_, err = unix.SendmsgN(int(fd), nil, nil, nil,
				unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		})
		if err != nil && !errors.Is(err, syscall.EPIPE) {
			t.Fatalf("the send fails with %v, want EPIPE", err)
		}
		return err != nil
	})
}

// cutConn makes the Read of a tls.Conn fail with errCut if the TCP stream ends without
// close_notify. Without cutConn that Read returns io.EOF, as after close_notify.
type cutConn struct{ net.Conn }

var errCut = errors.New("cut without close_notify")

func (c cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF {
		err = errCut
	}
	return n, err
}

// serve starts a server, which calls f with each connection that has done its handshake. It returns
// the port.
func (r *rig) serve(f func(*tls.Conn, *net.TCPConn)) int {
	return testkit.Serve(r.t, func(nc net.Conn) {
		nc.SetDeadline(time.Now().Add(testkit.Patience))
		c := r.tlsServer(cutConn{nc})
		if c.Handshake() == nil {
			f(c, nc.(*net.TCPConn))
		}
	})
}

// sink starts a server. When a connection has ended, the channel got receives the connection's
// bytes, and "|close_notify" or "|cut".
func (r *rig) sink() (port int, got <-chan string) {
	ch := make(chan string, 10)
	return r.serve(func(c *tls.Conn, _ *net.TCPConn) {
		b, err := io.ReadAll(c)
		end := "close_notify"
		if err != nil {
			end = "cut"
		}
		ch <- string(b) + "|" + end
	}), ch
}

func want(t *testing.T, got <-chan string, want string) {
	t.Helper()
	select {
	case s := <-got:
		if s != want {
			t.Errorf("the peer has got %.100q, want %.100q", s, want)
		}
	case <-time.After(testkit.Patience):
		t.Fatal("the peer's connection has not ended within the time limit")
	}
}

func random(n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	r.Read(p)
	return p
}

func TestBytesOfADataChannelGoBothWays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h, c := r.channel(r.echo())
	data := random(8 << 20)
	go func() {
		c.Write(data)
		c.CloseWrite()
	}()
	if got := rest(t, c); !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back; they differ from the %d bytes sent", len(got),
			len(data))
	}
	r.ok(r.Shutdown(h)) // waits until the out pump has ended, which may be after the peer's end
	st := r.status(h)
	if st.Sent != int64(len(data)) || st.Received != st.Sent || st.Read != "end" ||
		st.Write != "shut" || st.ReadError != nil || st.WriteError != nil {
		t.Errorf("the status is %+v, want all bytes sent and received, Read end, Write "+
			"shut and no error", st)
	}
	r.ok(r.Close(h))
	r.gone()
}

func TestADataChannelComesWithAccept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, port := r.server(), testkit.Port(t)
	c, worker := pair(t)
	accept := r.start(r.Session.Accept(ctx, "127.0.0.1", port, worker))
	peer := r.dial(port)
	h := accept.ok().(session.Handle)
	send(t, c, []byte("hello"))
	if got := string(receive(t, peer, 5)); got != "hello" {
		t.Errorf("the peer got %q, want \"hello\"", got)
	}
	peer.Write([]byte("bye"))
	peer.CloseWrite()
	if got := string(rest(t, c)); got != "bye" {
		t.Errorf("the caller got %q, want \"bye\"", got)
	}
	r.ok(r.Close(h))
}

// TestWhatWasSentBeforeTheHandshakeIsSent: bytes in the data channel before the handshake are sent
// to the peer after the handshake.
func TestWhatWasSentBeforeTheHandshakeIsSent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	port, got := r.sink()
	h := r.handle(r.NewClient("localhost", port))
	c, worker := pair(t)
	send(t, c, []byte("early"))
	c.CloseWrite()
	r.ok(r.Session.Handshake(h, worker))
	want(t, got, "early|close_notify")
	r.ok(r.Close(h))
}

func TestReadAndWriteAreRefusedOnAHandleWithADataChannel(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h, _ := r.channel(r.echo())
	for _, c := range []*session.Call{r.Read(h, 1), r.Write(h, []byte("x")), r.Write(h, nil)} {
		r.failsWith(c, kind.State, "data channel")
	}
	r.ok(r.Close(h))
}

// connClosed waits until the worker has closed its end of a data channel. c is the caller's end.
func connClosed(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the caller's Read returns the error %v, want io.EOF", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the caller's send fails with %v, want EPIPE", err)
	}
}

// TestADataChannelThatIsNotTakenIsClosed: if the call that brings a data channel fails, the channel
// is closed.
func TestADataChannelThatIsNotTakenIsClosed(t *testing.T) {
	t.Parallel()
	t.Run("no such handle", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		c, worker := pair(t)
		r.fails(r.Session.Handshake(7, worker), kind.Handle)
		connClosed(t, c)
		c, worker = pair(t)
		r.fails(r.Session.Accept(7, "127.0.0.1", 1, worker), kind.Handle)
		connClosed(t, c)
	})
	t.Run("the handshake fails", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, func(e *fakeengine.Engine, _ *session.Config) { e.System = nil })
		h := r.handle(r.NewClient("localhost", r.echo()))
		c, worker := pair(t)
		r.fails(r.Session.Handshake(h, worker), kind.Verify)
		connClosed(t, c)
	})
	t.Run("the handshake has been done", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		h, first := r.channel(r.echo())
		plain := r.client(r.echo())
		for _, h := range []session.Handle{h, plain} {
			c, worker := pair(t)
			r.fails(r.Session.Handshake(h, worker), kind.State)
			connClosed(t, c)
		}
		r.ok(r.Handshake(h)) // without a channel
		send(t, first, []byte("x"))
		receive(t, first, 1)
	})
	t.Run("the call is cancelled before its turn", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		h := r.handle(r.NewClient("localhost", testkit.Silent(t)))
		first := r.start(r.Handshake(h))
		c, worker := pair(t)
		second := r.start(r.Session.Handshake(h, worker))
		second.Cancel()
		second.fails(kind.Cancelled)
		connClosed(t, c)
		first.Cancel()
		first.fails(kind.Cancelled)
	})
	t.Run("no client comes", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		c, worker := pair(t)
		a := r.start(r.Session.Accept(r.server(), "127.0.0.1", testkit.Port(t), worker))
		a.Cancel()
		a.fails(kind.Cancelled)
		connClosed(t, c)
	})
	t.Run("the session ends", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		h := r.handle(r.NewClient("localhost", testkit.Silent(t)))
		c, worker := pair(t)
		call := r.start(r.Session.Handshake(h, worker))
		r.End()
		call.fails(kind.Cancelled)
		connClosed(t, c)
	})
}

// TestAWrongDescriptorIsAParamsError: the call fails before it does anything, so the handshake can
// still be done.
func TestAWrongDescriptorIsAParamsError(t *testing.T) {
	t.Parallel()
	socket := func(t *testing.T, typ int) int {
		fd, err := sockets.New(unix.AF_UNIX, typ)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	for name, c := range map[string]struct {
		make func(*testing.T) int
		says string
	}{
		"not connected": {func(t *testing.T) int {
			return socket(t, unix.SOCK_STREAM)
		}, "not connected"},
		"listening": {func(t *testing.T) int {
			fd := socket(t, unix.SOCK_STREAM)
			err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{}), unix.Listen(fd, 1))
			if err != nil {
				t.Fatal(err)
			}
			return fd
		}, "listens"},
		"seqpacket": {func(t *testing.T) int {
			fds, err := sockets.Pair(unix.SOCK_SEQPACKET)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fds[0])
			return fds[1]
		}, "not a stream"},
		"datagram": {func(t *testing.T) int {
			return socket(t, unix.SOCK_DGRAM)
		}, "not a stream"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			h := r.handle(r.NewClient("localhost", r.echo()))
			r.failsWith(r.Session.Handshake(h, unixConn(t, c.make(t))),
				kind.Params, c.says)
			r.fails(r.Session.Accept(r.server(), "127.0.0.1", testkit.Port(t),
				unixConn(t, c.make(t))), kind.Params)
			r.ok(r.Handshake(h))
		})
	}
}
