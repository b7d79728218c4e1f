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

// lineWith sends a line, and the descriptors with its first byte.
func (p *peer) lineWith(line string, files ...*os.File) {
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
func (p *peer) shake(handle string) *net.UnixConn {
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
		t.Errorf("the channel is open: %d, %v", n, err)
	}
}

func TestBytesGoOverADataChannel(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.ok("tls.NewClient", "localhost", p.echo())
	ch := p.shake("1")
	data := make([]byte, 3<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	go func() { ch.Write(data); ch.CloseWrite() }()
	got, err := io.ReadAll(ch)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes came back, other ones or not all, %v", len(got), err)
	}
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

func TestFlushTakesAnyNumber(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.client(p.echo())
	p.ok("tls.Write", 1, "aGVsbG8=")
	p.ok("tls.Flush", 1, 5)
	p.fails(kind.State, "tls.Flush", 1, 6) // no bytes are on their way
	p.fails(kind.Params, "tls.Flush", 1, -1)
	p.ok("tls.NewClient", "localhost", p.echo())
	p.shake("2")
	p.ok("tls.Flush", 2, 0)
	id := p.begin("tls.Flush", 2, int64(1)<<62) // more may come on the channel
	p.line(fmt.Sprintf(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":[%d]}`, id))
	p.expect(cancelled(fmt.Sprint(id), "tls.Flush", "2"))
}

// TestHalfCloseWithoutAChannel: tls.Shutdown works also if the data goes over control, as base64.
func TestHalfCloseWithoutAChannel(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.client(p.echo())
	p.ok("tls.Write", 1, "aGVsbG8=")
	p.ok("tls.Shutdown", 1)
	p.ok("tls.Shutdown", 1)
	p.fails(kind.State, "tls.Write", 1, "aGVsbG8=")
	if got := p.ok("tls.Read", 1, 5); got != "aGVsbG8=" {
		t.Errorf("read %s", got)
	}
	if got := p.ok("tls.Read", 1, 5); got != "" {
		t.Errorf("read %s, want the end", got)
	}
}

// TestAnErrorOfStatusIsAnError: it has the form of an error of the protocol, and becomes the last
// error.
func TestAnErrorOfStatusIsAnError(t *testing.T) {
	t.Parallel()
	p := newPeer(t, failing(fakeengine.Write,
		&net.OpError{Op: "write", Err: os.NewSyscallError("write", unix.EPIPE)}))
	p.ok("tls.NewClient", "localhost", p.echo())
	ch := p.shake("1")
	if _, err := ch.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, "EPIPE", func() bool {
		_, err := ch.Write([]byte("x"))
		return errors.Is(err, unix.EPIPE)
	})
	p.line(`{"jsonrpc":"2.0","id":1,"method":"tls.Status","params":[1]}`)
	p.expect(`{"jsonrpc":"2.0","id":1,"result":{"read":"open","write":"failed","received":0,"sent":0,
		"writeError":{"code":-32008,"message":"tls.Write: handle 1: broken pipe","data":{"kind":"io","op":"tls.Write","handle":1,"errno":"EPIPE"}}}}`)
	if got := p.ok("tls.LastError"); got != "tls.Write: handle 1: broken pipe" {
		t.Errorf("LastError is %q", got)
	}
	p.ok("tls.Close", 1) // Status has returned the error
}

func TestACallWithoutItsDescriptor(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.ok("tls.NewClient", "localhost", p.echo())
	p.fails(kind.Limit, "tls.Handshake", 1, 1)
	p.fails(kind.Params, "tls.Handshake", 1, 2)
	ctx := p.server()
	p.fails(kind.Limit, "tls.Accept", ctx, "127.0.0.1", testkit.Port(t), 1)
	p.ok("tls.Handshake", 1, 0) // the handle still works
	if h := p.server(); h != "4" {
		t.Errorf("got handle %s, want 4: the refused Accept has taken 3", h)
	}
}

// TestADescriptorOfTheWrongKind: it is a params error, and harms nothing.
func TestADescriptorOfTheWrongKind(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
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
		t.Errorf("the descriptor is open: %d, %v", n, err)
	}
	p.shake("1")
}

func TestABatchHasNoChannels(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.ok("tls.NewClient", "localhost", p.echo())
	ours, theirs := channelPair(t)
	p.lineWith(`[{"jsonrpc":"2.0","id":1,"method":"tls.Handshake","params":{"handle":1,"channel":1}}]`, theirs)
	p.expect(`[{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":...,"data":{"kind":"params","op":"tls.Handshake"}}}]`)
	p.silent()
	isEnded(t, ours)
}

// TestACallThatFailsClosesItsDescriptor: this holds for every reason of the failure.
func TestACallThatFailsClosesItsDescriptor(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
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
		p.silent() // the next message
		isEnded(t, ours)
	}
}

// TestTheSessionsEndClosesDescriptors: no call has taken them.
func TestTheSessionsEndClosesDescriptors(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	ours, theirs := channelPair(t)
	p.lineWith(`{"jsonrpc":"2.0",`, theirs)
	p.conn.CloseWrite()
	p.over()
	isEnded(t, ours)
}

// TestCallsThatAreSentAtOnceHaveTheirOwnChannels: the order of the descriptors decides.
func TestCallsThatAreSentAtOnceHaveTheirOwnChannels(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
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

// TestBytesOnADataChannelKeepASessionFromBeingIdle: there is no call meanwhile.
func TestBytesOnADataChannelKeepASessionFromBeingIdle(t *testing.T) {
	t.Parallel()
	testkit.Until(t, "bytes move all the time, and the session is not idle", func() bool {
		return bytesKeepASession(t)
	})
}

// bytesKeepASession sends bytes for longer than the limit. It returns false if the machine has
// stood still for the limit. Then the session has been idle in truth, and its end shows nothing.
// Session.LastMoved may be early by grain, and so may the end of the session.
func bytesKeepASession(t *testing.T) (kept bool) {
	const limit, grain = 2 * time.Second, 10 * time.Millisecond
	p := waitingPeer(t, func(_ *fakeengine.Engine, c *rpc.Config) { c.IdleTimeout = limit })
	p.begin("tls.NewClient", "localhost", p.echo())
	ch, theirs := channelPair(t)
	p.lineWith(`{"jsonrpc":"2.0","id":"h","method":"tls.Handshake","params":[1,1]}`, theirs)
	moved := time.Now() // not later than the session's last byte
	p.serve()
	tick := time.NewTicker(limit / 40)
	defer tick.Stop()
	// The promise is about time.
	for begun := moved; time.Since(begun) < limit+limit/2; <-tick.C {
		before := time.Now()
		_, err := ch.Write([]byte{1})
		if err == nil {
			_, err = ch.Read(make([]byte, 1))
		}
		if still := time.Since(moved); err != nil && still < limit-grain {
			t.Fatalf("the session has ended after %v, %v after a byte: %v",
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

// newClient is a Go client of a served session.
func newClient(t testing.TB) (*peer, *client.Client) {
	p := newPeer(t)
	p.conn.SetDeadline(time.Time{})
	c := client.New(p.conn)
	t.Cleanup(func() { c.Close() })
	return p, c
}

// TestAGoClientHasANetConn: as a TLS client, and as a TLS server.
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
	testkit.Until(t, "the listener", func() bool {
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
		t.Errorf("%d bytes came back, other ones or not all", len(got))
	}
	must(conn.Close())
	_, err = c.Status(ctx, h)
	var e *client.Error
	if !errors.As(err, &e) || e.Kind != client.KindHandle {
		t.Errorf("the handle is not freed: %v", err)
	}
}

// TestACutConnectionIsNoEnd: a Go client gets an error.
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
		t.Errorf("got %v, want an error of kind io", err)
	}
	conn.CloseContext(context.Background())
}
