package rpc_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/rpc"
	"tlsd/rpc/client"
)

// channelPair makes a pair of sockets. The second is for tlsd.
func channelPair(t testing.TB) (*net.UnixConn, *os.File) {
	t.Helper()
	ours, theirs := testkit.SocketPair(t, unix.SOCK_STREAM)
	c := testkit.UnixConn(t, ours)
	c.SetDeadline(time.Now().Add(testkit.Patience))
	return c, theirs
}

// lineWith sends a line, and the descriptors of the files with its first byte. It closes the files.
func (p *caller) lineWith(line string, files ...*os.File) {
	p.t.Helper()
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	data := []byte(line + "\n")
	if n, _, err := p.conn.WriteMsgUnix(data, unix.UnixRights(fds...), nil); err != nil ||
		n != len(data) {
		p.t.Fatalf("sent %d bytes of %d: %v", n, len(data), err)
	}
	for _, f := range files {
		f.Close()
	}
}

// shake does a handshake with a data channel, and returns the caller's end.
func (p *caller) shake(handle string) *net.UnixConn {
	p.t.Helper()
	ours, theirs := channelPair(p.t)
	p.lineWith(`{"jsonrpc":"2.0","id":"h","method":"tls.Handshake","params":[`+handle+`,1]}`, theirs)
	p.expect(`{"jsonrpc":"2.0","id":"h","result":0}`)
	return ours
}

// isEnded checks that the other end of a channel was closed.
func isEnded(t testing.TB, ch net.Conn) {
	t.Helper()
	if n, err := ch.Read(make([]byte, 1)); n != 0 || err == nil ||
		errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the channel is open: a Read returns %d, %v; want an end", n, err)
	}
}

// The bytes of a data channel reach the peer and come back, and tls.Status counts them. tls.Read
// and tls.Write are not possible beside a data channel.
func TestBytesGoOverADataChannel(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	p.ok("tls.NewClient", "localhost", p.echo())
	ch := p.shake("1")
	data := make([]byte, 3<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	go func() { ch.Write(data); ch.CloseWrite() }()
	got, err := io.ReadAll(ch)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes come back, not the %d bytes that were sent; error %v", len(got),
			len(data), err)
	}
	p.ok("tls.Shutdown", 1) // the peer can end before the session knows that writing has ended
	p.line(`{"jsonrpc":"2.0","id":1,"method":"tls.Status","params":[1]}`)
	p.expect(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"result":{"read":"end","write":"shut","received":%d,"sent":%[1]d}}`, len(data)))
	p.ok("tls.Flush", 1, len(data))
	p.fails(kind.State, "tls.Flush", 1, len(data)+1)
	p.ok("tls.Shutdown", 1)
	p.fails(kind.State, "tls.Read", 1, 1)
	p.fails(kind.State, "tls.Write", 1, "")
	p.ok("tls.Close", 1)
	isEnded(t, ch)
}

// tls.Flush waits until the given number of bytes was sent. Without a data channel no further bytes
// can come, so it is an error if the number is larger than what was sent. With a data channel
// further bytes may come, so tls.Flush waits.
func TestFlushTakesAnyNumber(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	p.client(p.echo())
	p.ok("tls.Write", 1, "aGVsbG8=")
	p.ok("tls.Flush", 1, 5)
	p.fails(kind.State, "tls.Flush", 1, 6) // only 5 bytes were written
	p.fails(kind.Params, "tls.Flush", 1, -1)
	p.ok("tls.NewClient", "localhost", p.echo())
	p.shake("2")
	p.ok("tls.Flush", 2, 0)
	id := p.begin("tls.Flush", 2, int64(1)<<62) // waits, because more may come
	p.line(fmt.Sprintf(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[%d]}`, id))
	p.expect(cancelled(fmt.Sprint(id), "tls.Flush", "2"))
}

// tls.Shutdown also works for a connection without a data channel. The caller can still read.
func TestHalfCloseWithoutAChannel(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	p.client(p.echo())
	p.ok("tls.Write", 1, "aGVsbG8=")
	p.ok("tls.Shutdown", 1)
	p.ok("tls.Shutdown", 1)
	p.fails(kind.State, "tls.Write", 1, "aGVsbG8=")
	if got := p.ok("tls.Read", 1, 5); got != "aGVsbG8=" {
		t.Errorf("after Shutdown the caller reads %s, want the echo, aGVsbG8=", got)
	}
	if got := p.ok("tls.Read", 1, 5); got != "" {
		t.Errorf("after the echo the caller reads %s, want the end", got)
	}
}

// tls.Status returns an error of a data channel in the form that the error of an answer has.
// tls.LastError returns the text of this error, too.
func TestAnErrorOfStatusIsAnError(t *testing.T) {
	t.Parallel()
	p := newCaller(t, failing(fakeengine.Write,
		&net.OpError{Op: "write", Err: os.NewSyscallError("write", unix.EPIPE)}))
	p.ok("tls.NewClient", "localhost", p.echo())
	ch := p.shake("1")
	if _, err := ch.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, "a write to the channel fails with EPIPE", func() bool {
		_, err := ch.Write([]byte("x"))
		return errors.Is(err, unix.EPIPE)
	})
	p.line(`{"jsonrpc":"2.0","id":1,"method":"tls.Status","params":[1]}`)
	p.expect(`{"jsonrpc":"2.0","id":1,"result":{"read":"open","write":"failed","received":0,"sent":0,
		"writeError":{"code":-32008,"message":"tls.Write: handle 1: broken pipe","data":{"kind":"io","op":"tls.Write","handle":1,"errno":"EPIPE"}}}}`)
	if got := p.ok("tls.LastError"); got != "tls.Write: handle 1: broken pipe" {
		t.Errorf("LastError is %q, want the text of the error in tls.Status", got)
	}
	p.ok("tls.Close", 1) // does not return the error, because Status has returned it
}

// A call that announces a descriptor, and comes without a descriptor, fails with kind limit: the
// system may have dropped the descriptor. The handle still works.
func TestACallWithoutItsDescriptor(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	p.ok("tls.NewClient", "localhost", p.echo())
	p.fails(kind.Limit, "tls.Handshake", 1, 1)
	p.fails(kind.Params, "tls.Handshake", 1, 2)
	ctx := p.server()
	p.fails(kind.Limit, "tls.Accept", ctx, "127.0.0.1", testkit.Port(t), 1)
	p.ok("tls.Handshake", 1, 0) // the handle still works
	if h := p.server(); h != "4" {
		t.Errorf("the next handle is %s, want 4, because the refused Accept has taken 3", h)
	}
}

// A descriptor that cannot be a data channel gives an error of kind params. tlsd closes the
// descriptor, and the handle still works.
func TestADescriptorOfTheWrongKind(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	p.ok("tls.NewClient", "localhost", p.echo())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p.lineWith(`{"jsonrpc":"2.0","id":1,"method":"tls.Handshake","params":[1,1]}`, w)
	p.expect(`{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":...,"data":{"kind":"params","op":"tls.Handshake"}}}`)
	r.SetReadDeadline(time.Now().Add(testkit.Patience))
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("tlsd has not closed the descriptor: %d, %v", n, err)
	}
	p.shake("1")
}

// A call in a batch cannot get a data channel. tlsd closes the descriptor that came with the batch.
func TestABatchHasNoChannels(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	p.ok("tls.NewClient", "localhost", p.echo())
	ours, theirs := channelPair(t)
	p.lineWith(`[{"jsonrpc":"2.0","id":1,"method":"tls.Handshake","params":{"handle":1,"channel":1}}]`, theirs)
	p.expect(`[{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":...,"data":{"kind":"params","op":"tls.Handshake"}}}]`)
	p.silent()
	isEnded(t, ours)
}

// If a call fails, for whatever reason, tlsd closes the descriptor that came with it.
func TestACallThatFailsClosesItsDescriptor(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	p.client(p.echo())
	p.ok("tls.NewClient", "localhost", p.echo())
	p.shake("2")
	for name, c := range map[string]struct{ method, params, kind string }{
		"no such handle":       {"tls.Handshake", `[9,1]`, `"kind":"handle","op":"tls.Handshake","handle":9`},
		"handshake done":       {"tls.Handshake", `[1,1]`, `"kind":"state","op":"tls.Handshake","handle":1`},
		"a channel already":    {"tls.Handshake", `[2,1]`, `"kind":"state","op":"tls.Handshake","handle":2`},
		"no such context":      {"tls.Accept", `[9,"127.0.0.1",1,1]`, `"kind":"handle","op":"tls.Accept","handle":9`},
		"a wrong port":         {"tls.Accept", `[9,"127.0.0.1",65536,1]`, `"kind":"params","op":"tls.Accept"`},
		"no parameter channel": {"tls.Status", `[9]`, `"kind":"handle","op":"tls.Status","handle":9`},
		"no method for it":     {"tls.Status", `[9,1]`, `"kind":"params","op":"tls.Status"`},
		"no such method":       {"tls.None", `[9,1]`, `"kind":"params"`},
	} {
		ours, theirs := channelPair(t)
		p.lineWith(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, c.method, c.params), theirs)
		got := p.answer()
		if !bytes.Contains([]byte(got), []byte(c.kind)) {
			t.Errorf("%s: got %s, want %s", name, got, c.kind)
		}
		p.silent() // the next message closes descriptors that the call has not taken
		isEnded(t, ours)
	}
}

// The end of a session closes descriptors that no call has taken.
func TestTheSessionsEndClosesDescriptors(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	ours, theirs := channelPair(t)
	p.lineWith(`{"jsonrpc":"2.0",`, theirs)
	p.conn.CloseWrite()
	p.over()
	isEnded(t, ours)
}

// If calls with descriptors are sent without waiting for answers, each call gets the descriptor
// that was sent with it.
func TestCallsThatAreSentAtOnceHaveTheirOwnChannels(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	port := p.echo()
	const n = 10
	var channels []*net.UnixConn
	for i := range n {
		p.line(fmt.Sprintf(`{"jsonrpc":"2.0","method":"tls.NewClient","params":["localhost",%d]}`, port))
		ours, theirs := channelPair(t)
		p.lineWith(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tls.Handshake","params":[%[1]d,1]}`, i+1), theirs)
		channels = append(channels, ours)
	}
	for range n {
		if r := p.response(); r.Error != nil {
			t.Fatal(r.Error)
		}
	}
	for i, ch := range channels {
		text := []byte(fmt.Sprintf("%0*d", i+1, i))
		ch.Write(text)
		got := make([]byte, len(text))
		if _, err := io.ReadFull(ch, got); err != nil || !bytes.Equal(got, text) {
			t.Errorf("channel %d: got %q, %v; want %q", i+1, got, err, text)
		}
		p.ok("tls.Flush", i+1, i+1)
		p.line(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tls.Status","params":[%d]}`, i+1))
		p.expect(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"result":{"read":"open","write":"open","received":%d,"sent":%[1]d}}`, i+1))
	}
}

// While bytes move on a data channel, the session is not idle, although it makes no calls.
func TestBytesOnADataChannelKeepASessionFromBeingIdle(t *testing.T) {
	t.Parallel()
	testkit.Until(t, "bytes move all the time, and the session is not idle", func() bool {
		return bytesKeepASession(t)
	})
}

// bytesKeepASession sends bytes for longer than the idle timeout, and fails the test if the session
// ends. If the machine stands still for the idle timeout, no bytes move, so the session may end.
// Then the run shows nothing, and bytesKeepASession returns false. Session.LastMoved may be up to
// 10 ms too early (the constant grain). Then the session ends too early by the same time.
func bytesKeepASession(t *testing.T) (kept bool) {
	const limit, grain = 2 * time.Second, 10 * time.Millisecond
	p := waitingCaller(t, func(_ *fakeengine.Engine, c *rpc.Config) { c.IdleTimeout = limit })
	p.begin("tls.NewClient", "localhost", p.echo())
	ch, theirs := channelPair(t)
	p.lineWith(`{"jsonrpc":"2.0","id":"h","method":"tls.Handshake","params":[1,1]}`, theirs)
	moved := time.Now() // not later than the session's last byte
	p.serve()
	tick := time.NewTicker(limit / 40)
	defer tick.Stop()
	// The session must live longer than the idle timeout. So the loop lasts longer, too.
	for begun := moved; time.Since(begun) < limit+limit/2; <-tick.C {
		before := time.Now()
		_, err := ch.Write([]byte{1})
		if err == nil {
			_, err = ch.Read(make([]byte, 1))
		}
		if still := time.Since(moved); err != nil && still < limit-grain {
			t.Fatalf("the session has ended after %v, only %v after the last byte: %v",
				time.Since(begun), still, err)
		}
		if kept = err == nil; !kept {
			break
		}
		moved = before
	}
	p.answer()
	p.answer()
	p.endsIdle()
	return kept
}

// newClient serves a session, and returns it with a Go client of the session.
func newClient(t testing.TB) (*caller, *client.Client) {
	p := newCaller(t)
	p.conn.SetDeadline(time.Time{})
	c := client.New(p.conn)
	t.Cleanup(func() { c.Close() })
	return p, c
}

// A Go client of tlsd can be a TLS client and a TLS server. It has a net.Conn for each connection.
func TestAGoClientHasANetConn(t *testing.T) {
	t.Parallel()
	p, c := newClient(t)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	listening, err := c.NewServerContext(ctx, p.cert.CertFile, p.cert.KeyFile)
	must(err)
	port := testkit.Port(t)
	served := make(chan error, 1)
	go func() {
		conn, err := c.AcceptConn(ctx, listening, "127.0.0.1", port)
		if err == nil {
			_, err = io.Copy(conn, conn)
			err = errors.Join(err, conn.Close())
		}
		served <- err
	}()
	var h client.Handle
	testkit.Until(t, "AcceptConn listens on its port", func() bool {
		h, err = c.NewClient(ctx, "127.0.0.1", port)
		return err == nil
	})
	conn, err := c.HandshakeConn(ctx, h)
	must(err)
	data := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(data)
		wrote <- errors.Join(err, conn.Flush(ctx), conn.CloseWrite())
	}()
	got, err := io.ReadAll(conn)
	must(err)
	must(<-wrote)
	must(<-served)
	if !bytes.Equal(got, data) {
		t.Errorf("%d bytes come back, not the %d bytes that were sent", len(got), len(data))
	}
	must(conn.Close())
	_, err = c.Status(ctx, h)
	var e *client.Error
	if !errors.As(err, &e) || e.Kind != client.KindHandle {
		t.Errorf("Status of a handle that is closed: %v, want an error of kind handle", err)
	}
}

// If the peer cuts the connection without close_notify, a Go client reads an error, not the end.
func TestACutConnectionIsNoEnd(t *testing.T) {
	t.Parallel()
	p, c := newClient(t)
	port := testkit.Serve(t, func(nc net.Conn) {
		s := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{p.cert.TLS()}})
		if s.Handshake() == nil {
			s.Write([]byte("some"))
		}
		nc.Close()
	})
	h, err := c.NewClient(t.Context(), "localhost", port)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.HandshakeConn(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(conn)
	var e *client.Error
	if !errors.As(err, &e) || e.Kind != client.KindIO {
		t.Errorf("the connection was cut, and ReadAll returns %v; want kind io", err)
	}
	conn.CloseContext(context.Background())
}
