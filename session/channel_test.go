package session_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/session"
)

// pair makes a socket pair: the caller's end, and the worker's.
func pair(t *testing.T) (caller, worker *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	caller, worker = unixConn(t, fds[0]), unixConn(t, fds[1])
	t.Cleanup(func() { caller.Close() })
	caller.SetDeadline(time.Now().Add(patience))
	return caller, worker
}

// unixConn makes a connection of a descriptor, which it closes.
func unixConn(t *testing.T, fd int) *net.UnixConn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}

// channel is a connection that has done its handshake, and the caller's end of its data channel.
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

// receive receives so many bytes.
func receive(t *testing.T, c net.Conn, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	if got, err := io.ReadFull(c, p); err != nil {
		t.Fatalf("%d of %d bytes received: %v", got, n, err)
	}
	return p
}

// rest receives to the end.
func rest(t *testing.T, c net.Conn) []byte {
	t.Helper()
	p, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("after %d bytes: %v", len(p), err)
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
	until(t, "a send that fails", func() bool {
		var err error
		raw.Control(func(fd uintptr) { _, err = unix.SendmsgN(int(fd), nil, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) })
		if err != nil && !errors.Is(err, syscall.EPIPE) {
			t.Fatalf("the send fails with %v, want EPIPE", err)
		}
		return err != nil
	})
}

// cutConn tells the end of the TCP stream from close_notify, which crypto/tls does not between two records.
type cutConn struct{ net.Conn }

var errCut = errors.New("cut without close_notify")

func (c cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF {
		err = errCut
	}
	return n, err
}

// serve is a server that has done the handshake when f gets a connection.
func (r *rig) serve(f func(*tls.Conn, *net.TCPConn)) int {
	return fakeengine.Serve(r.t, func(nc net.Conn) {
		nc.SetDeadline(time.Now().Add(patience))
		c := tls.Server(cutConn{nc}, &tls.Config{Certificates: []tls.Certificate{r.cert.TLS()}})
		if c.Handshake() == nil {
			f(c, nc.(*net.TCPConn))
		}
	})
}

// sink is a server that gives what it has got, and how that has ended, when the connection has.
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
	case <-time.After(patience):
		t.Fatal("the peer has got no end")
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
		t.Errorf("%d bytes came back, want %d; or others", len(got), len(data))
	}
	st := r.status(h)
	if st.Sent != int64(len(data)) || st.Received != st.Sent || st.Read != "end" || st.Write != "shut" || st.ReadError != nil || st.WriteError != nil {
		t.Errorf("status %+v", st)
	}
	r.ok(r.Close(h))
	r.gone()
}

func TestADataChannelComesWithAccept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, port := r.server(), fakeengine.FreePort(t)
	c, worker := pair(t)
	accept := r.start(r.Session.Accept(ctx, "127.0.0.1", port, worker))
	peer := r.dial(port)
	h := accept.ok().(session.Handle)
	send(t, c, []byte("hello"))
	if got := string(receive(t, peer, 5)); got != "hello" {
		t.Errorf("the peer got %q", got)
	}
	peer.Write([]byte("bye"))
	peer.CloseWrite()
	if got := string(rest(t, c)); got != "bye" {
		t.Errorf("the caller got %q", got)
	}
	r.ok(r.Close(h))
}

// TestWhatWasSentBeforeTheHandshakeIsSent, once that is done.
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
		if e := r.fails(c, kind.State); !strings.Contains(e.Why, "data channel") {
			t.Errorf("%v", e)
		}
	}
	r.ok(r.Close(h))
}

// closed waits until a channel's other end is closed.
func closed(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the caller reads %v, want its end", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the caller's send fails with %v, want EPIPE", err)
	}
}

// TestADataChannelThatIsNotTakenIsClosed, and the error says why.
func TestADataChannelThatIsNotTakenIsClosed(t *testing.T) {
	t.Parallel()
	t.Run("no such handle", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		c, worker := pair(t)
		r.fails(r.Session.Handshake(7, worker), kind.Handle)
		closed(t, c)
		c, worker = pair(t)
		r.fails(r.Session.Accept(7, "127.0.0.1", 1, worker), kind.Handle)
		closed(t, c)
	})
	t.Run("the handshake fails", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, func(e *fakeengine.Engine, _ *session.Config) { e.System = nil })
		h := r.handle(r.NewClient("localhost", r.echo()))
		c, worker := pair(t)
		r.fails(r.Session.Handshake(h, worker), kind.Verify)
		closed(t, c)
	})
	t.Run("the handshake has been done", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		h, first := r.channel(r.echo())
		plain := r.client(r.echo())
		for _, h := range []session.Handle{h, plain} {
			c, worker := pair(t)
			r.fails(r.Session.Handshake(h, worker), kind.State)
			closed(t, c)
		}
		r.ok(r.Handshake(h)) // as ever
		send(t, first, []byte("x"))
		receive(t, first, 1)
	})
	t.Run("the call is cancelled before its turn", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		h := r.handle(r.NewClient("localhost", fakeengine.Silent(t)))
		first := r.start(r.Handshake(h))
		c, worker := pair(t)
		second := r.start(r.Session.Handshake(h, worker))
		second.Cancel()
		second.fails(kind.Cancelled)
		closed(t, c)
		first.Cancel()
		first.fails(kind.Cancelled)
	})
	t.Run("no client comes", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		c, worker := pair(t)
		a := r.start(r.Session.Accept(r.server(), "127.0.0.1", fakeengine.FreePort(t), worker))
		a.Cancel()
		a.fails(kind.Cancelled)
		closed(t, c)
	})
	t.Run("the session ends", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		h := r.handle(r.NewClient("localhost", fakeengine.Silent(t)))
		c, worker := pair(t)
		call := r.start(r.Session.Handshake(h, worker))
		r.End()
		call.fails(kind.Cancelled)
		closed(t, c)
	})
}

// TestAWrongDescriptorIsAParamsError, and the handshake can be done afterwards.
func TestAWrongDescriptorIsAParamsError(t *testing.T) {
	t.Parallel()
	socket := func(t *testing.T, typ int) int {
		fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	for name, c := range map[string]struct {
		make func(*testing.T) int
		says string
	}{
		"not connected": {func(t *testing.T) int { return socket(t, unix.SOCK_STREAM) }, "not connected"},
		"listening": {func(t *testing.T) int {
			fd := socket(t, unix.SOCK_STREAM)
			if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{}), unix.Listen(fd, 1)); err != nil {
				t.Fatal(err)
			}
			return fd
		}, "listens"},
		"seqpacket": {func(t *testing.T) int {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fds[0])
			return fds[1]
		}, "not a stream"},
		"datagram": {func(t *testing.T) int { return socket(t, unix.SOCK_DGRAM) }, "not a stream"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			h := r.handle(r.NewClient("localhost", r.echo()))
			if e := r.fails(r.Session.Handshake(h, unixConn(t, c.make(t))), kind.Params); !strings.Contains(e.Why, c.says) {
				t.Errorf("%v", e)
			}
			r.fails(r.Session.Accept(r.server(), "127.0.0.1", fakeengine.FreePort(t), unixConn(t, c.make(t))), kind.Params)
			r.ok(r.Handshake(h))
		})
	}
}

// TestHalfCloseSendsCloseNotifyAndLeavesReadingOpen, on a channel by shutdown(2) or tls.Shutdown, and without one by tls.Shutdown.
func TestHalfCloseSendsCloseNotifyAndLeavesReadingOpen(t *testing.T) {
	t.Parallel()
	for name, shut := range map[string]func(*rig, session.Handle, *net.UnixConn){
		"shutdown(2)": func(r *rig, h session.Handle, c *net.UnixConn) { c.CloseWrite() },
		"tls.Shutdown": func(r *rig, h session.Handle, c *net.UnixConn) {
			r.ok(r.Shutdown(h))
			if st := r.status(h); st.Write != "shut" || st.Sent != 7 {
				r.t.Errorf("status %+v", st)
			}
			r.ok(r.Shutdown(h))
			unsendable(r.t, c)
		},
		"tls.Shutdown without a channel": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			port := r.serve(func(c *tls.Conn, _ *net.TCPConn) {
				b, err := io.ReadAll(c)
				if err != nil {
					b = []byte(err.Error())
				}
				c.Write(append([]byte("you said "), b...))
				c.CloseWrite()
			})
			if shut == nil {
				h := r.client(port)
				r.ok(r.Write(h, []byte("request")))
				r.ok(r.Shutdown(h))
				r.ok(r.Shutdown(h))
				r.fails(r.Write(h, []byte("more")), kind.State)
				if got := r.ok(r.Read(h, 100)).([]byte); string(got) != "you said request" {
					t.Errorf("got %q", got)
				}
				if st := r.status(h); st.Write != "shut" || st.Sent != 7 || st.Received != 16 {
					t.Errorf("status %+v", st)
				}
				r.ok(r.Close(h))
				return
			}
			h, c := r.channel(port)
			send(t, c, []byte("request"))
			shut(r, h, c)
			if got := rest(t, c); string(got) != "you said request" {
				t.Errorf("got %q", got)
			}
			r.ok(r.Close(h))
			r.gone()
		})
	}
}

// TestCloseSendsAllThatWasSentBefore, though the peer takes its time, and close_notify behind it.
func TestCloseSendsAllThatWasSentBefore(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Write)
	r := newRig(t, g.install)
	port, got := r.sink()
	h, c := r.channel(port)
	data := random(150000)
	send(t, c, data)
	closing := r.start(r.Close(h))
	unsendable(t, c) // what is sent behind the Close is refused
	for range 3 {
		await(t, g.first(), "the next piece")
		if closing.ended() {
			t.Fatal("the Close does not wait for what was sent")
		}
		g.release <- nil
	}
	closing.ok()
	want(t, got, string(data)+"|close_notify")
	r.gone()
}

// TestACloseThatIsCancelledGivesUpWhatIsLeft, and says so; without close_notify.
func TestACloseThatIsCancelledGivesUpWhatIsLeft(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Write)
	r := newRig(t, g.install)
	port, got := r.sink()
	h, c := r.channel(port)
	send(t, c, []byte("lost"))
	await(t, g.first(), "the piece")
	closing := r.start(r.Close(h))
	unsendable(t, c)
	closing.Cancel()
	if e := closing.fails(kind.Cancelled); e.Op != "tls.Close" || !strings.Contains(e.Why, "0 bytes have left") {
		t.Errorf("%v", e)
	}
	want(t, got, "|cut")
	r.fails(r.Status(h), kind.Handle)
	r.gone()
}

// TestTheEndOfTheSessionDrains what was sent, within the close timeout, and cuts then.
func TestTheEndOfTheSessionDrains(t *testing.T) {
	t.Parallel()
	for name, closing := range map[string]bool{"not closed": false, "in its Close": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(fakeengine.Write)
			r := newRig(t, g.install, timeouts(session.Timeouts{Close: patience}))
			port, got := r.sink()
			h, c := r.channel(port)
			data := random(100000)
			send(t, c, data)
			await(t, g.first(), "a piece")
			end := "|cut"
			if closing {
				call := r.start(r.Close(h))
				unsendable(t, c)
				defer call.ok()
				end = "|close_notify"
			}
			over := make(chan struct{})
			go func() { r.End(); close(over) }()
			unsendable(t, c)
			g.release <- nil
			await(t, g.first(), "the second piece")
			g.release <- nil
			await(t, over, "the session's end")
			want(t, got, string(data)+end)
			r.gone()
		})
	}
	t.Run("but not for ever", func(t *testing.T) {
		t.Parallel()
		g := newGate(fakeengine.Write)
		r := newRig(t, g.install, timeouts(session.Timeouts{Close: moment}))
		port, got := r.sink()
		a, c := r.channel(port)
		_, d := r.channel(port)
		send(t, c, []byte("lost"))
		send(t, d, []byte("lost"))
		await(t, g.first(), "a piece")
		await(t, g.first(), "a piece")
		call := r.start(r.Close(a))
		unsendable(t, c)
		r.gone()
		call.fails(kind.Cancelled)
		want(t, got, "|cut")
		want(t, got, "|cut")
	})
}

// TestACallerThatClosesItsChannelHasSentWhatItSent, and is cut without close_notify: nobody knows whether it was all.
func TestACallerThatClosesItsChannelHasSentWhatItSent(t *testing.T) {
	t.Parallel()
	for name, byClose := range map[string]bool{"tls.Close": true, "the session's end": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			port, got := r.sink()
			h, c := r.channel(port)
			send(t, c, []byte("all of it"))
			c.Close()
			r.ok(r.Flush(h, 9))
			if st := r.status(h); st.Write != "open" || st.Sent != 9 {
				t.Errorf("status %+v", st)
			}
			r.fails(r.Flush(h, 10), kind.State)
			if byClose {
				r.ok(r.Close(h))
			} else {
				r.End()
			}
			want(t, got, "all of it|cut")
		})
	}
}

// TestShutdownOfAChannelThatItsCallerHasClosedSendsCloseNotify, before what was sent has left and after.
func TestShutdownOfAChannelThatItsCallerHasClosedSendsCloseNotify(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]bool{"before": false, "after": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(fakeengine.Write)
			r := newRig(t, g.install)
			port, got := r.sink()
			h, c := r.channel(port)
			send(t, c, []byte("all"))
			await(t, g.first(), "the piece")
			c.Close()
			if late {
				g.release <- nil
				r.fails(r.Flush(h, 4), kind.State)
			}
			shut := r.start(r.Shutdown(h))
			g.release <- nil
			shut.ok()
			want(t, got, "all|close_notify")
			if st := r.status(h); st.Write != "shut" {
				t.Errorf("status %+v", st)
			}
			r.ok(r.Shutdown(h))
			r.ok(r.Close(h))
			r.gone()
		})
	}
}

// TestAPeersResetEndsTheDrain, and the Close says so.
func TestAPeersResetEndsTheDrain(t *testing.T) {
	t.Parallel()
	r := newRig(t, timeouts(session.Timeouts{Write: era}))
	reset := make(chan struct{})
	h, c := r.channel(r.serve(func(_ *tls.Conn, nc *net.TCPConn) {
		<-reset
		nc.SetLinger(0)
	}))
	c.SetWriteDeadline(time.Now().Add(moment))
	c.Write(make([]byte, 64<<20)) // more than goes
	closing := r.start(r.Close(h))
	unsendable(t, c)
	if closing.ended() {
		t.Fatal("the Close did not wait for the peer")
	}
	close(reset)
	closing.fails(kind.IO)
	r.gone()
}

// TestCloseEndsAHandshakeThatBringsAChannel, and one that succeeds in time is drained.
func TestCloseEndsAHandshakeThatBringsAChannel(t *testing.T) {
	t.Parallel()
	t.Run("it goes on waiting", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.SetGrace(moment)
		h := r.handle(r.NewClient("localhost", fakeengine.Silent(t)))
		c, worker := pair(t)
		handshake, flush := r.start(r.Session.Handshake(h, worker)), r.start(r.Flush(h, 1))
		r.ok(r.Close(h))
		handshake.fails(kind.Cancelled)
		flush.fails(kind.Cancelled)
		closed(t, c)
		r.gone()
	})
	t.Run("it succeeds", func(t *testing.T) {
		t.Parallel()
		g := newGate(fakeengine.Handshake)
		r := newRig(t, g.install)
		r.SetGrace(era)
		port, got := r.sink()
		h := r.handle(r.NewClient("localhost", port))
		c, worker := pair(t)
		send(t, c, []byte("early"))
		handshake := r.start(r.Session.Handshake(h, worker))
		await(t, g.first(), "the handshake")
		closing := r.start(r.Close(h))
		g.release <- nil
		handshake.ok()
		closing.ok()
		want(t, got, "early|close_notify")
		r.gone()
	})
}

func TestFlushWaitsUntilSoMuchHasLeft(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Write)
	r := newRig(t, g.install)
	port, _ := r.sink()
	h, c := r.channel(port)
	send(t, c, random(4))
	await(t, g.first(), "the piece")
	four, five := r.start(r.Flush(h, 4)), r.start(r.Flush(h, 5))
	r.ok(r.Flush(h, 0))
	if four.ended() {
		t.Fatal("nothing has left")
	}
	g.release <- nil
	four.ok()
	if five.ended() {
		t.Error("the fifth byte has not been sent")
	}
	five.Cancel()
	five.fails(kind.Cancelled)
	later := r.start(r.Flush(h, 5))
	c.CloseWrite()
	later.fails(kind.State)
	// Without a channel:
	plain := r.client(port)
	g.release <- nil
	r.ok(r.Write(plain, random(3)))
	r.ok(r.Flush(plain, 3))
	r.fails(r.Flush(plain, 4), kind.State)
}

// TestFlushAndShutdownEndWithTheirClose: it drains for them, and does not wait until they give up.
func TestFlushAndShutdownEndWithTheirClose(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make func(*rig, session.Handle) *session.Call
		ends kind.Kind
	}{
		"Flush":                  {func(r *rig, h session.Handle) *session.Call { return r.Flush(h, 4) }, ok},
		"Flush of what is never": {func(r *rig, h session.Handle) *session.Call { return r.Flush(h, 5) }, kind.State},
		"Shutdown":               {func(r *rig, h session.Handle) *session.Call { return r.Shutdown(h) }, ok},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate(fakeengine.Write)
			r := newRig(t, g.install)
			r.SetGrace(era) // a Close does not count on it
			port, got := r.sink()
			h, caller := r.channel(port)
			send(t, caller, random(4))
			await(t, g.first(), "the piece")
			call, closing := r.start(c.make(r, h)), r.start(r.Close(h))
			unsendable(t, caller)
			g.release <- nil
			closing.ok()
			if c.ends == ok {
				call.ok()
			} else {
				call.fails(c.ends)
			}
			want(t, got, string(random(4))+"|close_notify")
		})
	}
}

func TestEachPieceOfAChannelHasTheWriteTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, timeouts(session.Timeouts{Write: moment}))
	h, c := r.channel(fakeengine.Serve(t, func(nc net.Conn) { deaf(r, nc); <-t.Context().Done() }))
	n, err := c.Write(make([]byte, 64<<20))
	if !errors.Is(err, syscall.EPIPE) {
		t.Fatalf("%d bytes sent, %v; want EPIPE", n, err)
	}
	st := r.status(h) // published before
	e := st.WriteError
	if st.Write != "failed" || st.Read != "open" || e == nil || e.Kind != kind.Timeout || e.Op != "tls.Write" || e.Handle != h ||
		!strings.Contains(e.Why, "bytes within 50ms; ") {
		t.Errorf("status %+v, %v", st, e)
	}
	if got := r.lastError(); got != e.Error() {
		t.Errorf("the last error is %q, want %q", got, e)
	}
	r.ok(r.Close(h)) // it has been told
	r.gone()
}

// TestSetTimeoutHoldsForThePieceThatWaits.
func TestSetTimeoutHoldsForThePieceThatWaits(t *testing.T) {
	t.Parallel()
	g := newGate(fakeengine.Write)
	r := newRig(t, g.install, timeouts(session.Timeouts{Write: era}))
	port, _ := r.sink()
	h, c := r.channel(port)
	send(t, c, []byte("x"))
	await(t, g.first(), "the piece")
	r.ok(r.SetTimeout(h, moment))
	unsendable(t, c)
	if e := r.fails(r.Close(h), kind.Timeout); !strings.Contains(e.Why, "within 50ms; 0 bytes have left before") {
		t.Errorf("%v", e) // and nobody was told
	}
}

// TestOneConnectionsStuckPeerDelaysNoOther, nor its stuck caller.
func TestOneConnectionsStuckPeerDelaysNoOther(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, stuck := r.channel(fakeengine.Serve(t, func(nc net.Conn) { deaf(r, nc); <-t.Context().Done() }))
	_, unread := r.channel(r.serve(func(c *tls.Conn, _ *net.TCPConn) { c.Write(make([]byte, 16<<20)) }))
	stuck.SetWriteDeadline(time.Now().Add(moment))
	for n := 1; n > 0; {
		n, _ = stuck.Write(make([]byte, 1<<20))
	}
	_ = unread
	h, c := r.channel(r.echo())
	for range 100 {
		send(t, c, []byte("ping"))
		receive(t, c, 4)
	}
	r.ok(r.Close(h))
}

// TestAResetIsNoticedByACallerThatOnlyWrites, and by no other error than that.
func TestAResetIsNoticedByACallerThatOnlyWrites(t *testing.T) {
	t.Parallel()
	for name, notify := range map[string]bool{"at once": false, "after close_notify": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			reset := make(chan struct{})
			h, c := r.channel(r.serve(func(c *tls.Conn, nc *net.TCPConn) {
				if notify {
					c.CloseWrite()
				}
				<-reset
				nc.SetLinger(0)
			}))
			if notify {
				rest(t, c)
			}
			send(t, c, []byte("x"))
			r.ok(r.Flush(h, 1))
			close(reset)
			unsendable(t, c)
			st := r.status(h)
			if st.Write != "failed" || st.WriteError.Kind != kind.IO || st.WriteError.Errno != "ECONNRESET" || st.WriteError.Op != "tls.Write" {
				t.Errorf("status %+v, %v", st, st.WriteError)
			}
			if notify != (st.Read == "end") || !notify && (st.Read != "failed" || st.ReadError.Op != "tls.Read") {
				t.Errorf("status %+v", st)
			}
			unsendable(t, c)
			r.ok(r.Close(h))
		})
	}
}

// TestACutFailsOnlyReading: a peer that ends without close_notify may go on reading.
func TestACutFailsOnlyReading(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	got := make(chan string, 1)
	h, c := r.channel(r.serve(func(c *tls.Conn, nc *net.TCPConn) {
		c.Write([]byte("half a mess"))
		nc.CloseWrite()
		b, _ := io.ReadAll(c)
		got <- string(b) + "|"
	}))
	if b := rest(t, c); string(b) != "half a mess" {
		t.Errorf("got %q", b)
	}
	st := r.status(h)
	if st.Read != "failed" || st.Write != "open" || st.ReadError.Kind != kind.IO || st.WriteError != nil || st.Received != 11 {
		t.Errorf("status %+v", st)
	}
	if last := r.lastError(); last != st.ReadError.Error() {
		t.Errorf("the last error is %q", last)
	}
	send(t, c, []byte("still here"))
	r.ok(r.Close(h))
	want(t, got, "still here|")
}

// TestAnAlertIsTheReasonOfBothDirections, though the Write has failed first; it is not published before the peer had its time.
func TestAnAlertIsTheReasonOfBothDirections(t *testing.T) {
	t.Parallel()
	for name, comes := range map[string]bool{"it comes": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed, alert := make(chan struct{}), make(chan struct{})
			r := newRig(t, func(e *fakeengine.Engine, _ *session.Config) {
				e.Hook = func(ctx context.Context, op fakeengine.Op) error {
					switch op {
					case fakeengine.Write:
						close(failed)
						return os.NewSyscallError("write", syscall.EPIPE)
					case fakeengine.Read:
						select {
						case <-alert:
							return errors.New("alert 116")
						case <-ctx.Done():
							return ctx.Err()
						}
					}
					return nil
				}
			})
			says := "broken pipe"
			if comes {
				r.SetLastWords(era)
				says = "alert 116"
			} else {
				r.SetLastWords(moment)
			}
			h, c := r.channel(r.echo())
			send(t, c, []byte("x"))
			await(t, failed, "the failed send")
			if comes {
				if st := r.status(h); st.Write != "open" {
					t.Errorf("status %+v, before the peer had its time", st)
				}
				close(alert)
			}
			unsendable(t, c)
			if st := r.status(h); st.Write != "failed" || !strings.Contains(st.WriteError.Why, says) ||
				comes != (st.Read == "failed") || comes && !strings.Contains(st.ReadError.Why, says) {
				t.Errorf("status %+v: %v, %v", st, st.WriteError, st.ReadError)
			}
			r.ok(r.Close(h))
		})
	}
}

// TestAnErrorThatNobodyWasToldIsTheCloses, and that handle is freed all the same.
func TestAnErrorThatNobodyWasToldIsTheCloses(t *testing.T) {
	t.Parallel()
	broken := os.NewSyscallError("write", syscall.EPIPE)
	for name, told := range map[string]func(*rig, session.Handle){
		"nobody":   nil,
		"Status":   func(r *rig, h session.Handle) { r.status(h) },
		"Flush":    func(r *rig, h session.Handle) { r.fails(r.Flush(h, 1), kind.IO) },
		"Shutdown": func(r *rig, h session.Handle) { r.fails(r.Shutdown(h), kind.IO) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, failing(fakeengine.Write, broken))
			h, c := r.channel(r.serve(func(c *tls.Conn, _ *net.TCPConn) { c.CloseWrite(); io.Copy(io.Discard, c) }))
			rest(t, c)
			send(t, c, []byte("x"))
			unsendable(t, c)
			if told != nil {
				told(r, h)
				r.ok(r.Close(h))
			} else if e := r.fails(r.Close(h), kind.IO); e.Errno != "EPIPE" || e.Op != "tls.Close" || e.Handle != h {
				t.Errorf("%v", e)
			}
			r.gone()
		})
	}
}
