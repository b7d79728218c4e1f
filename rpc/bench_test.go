package rpc_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/testalloc"
	"tlsd/rpc"
	"tlsd/session"
)

// idle is an engine that encrypts nothing and sends nothing: what is left is the way there and back.
type idle struct{ session.Engine }

func (idle) Backend() string { return "openssl" }
func (idle) NewClientContext(session.CABundle) (session.EngineContext, error) {
	return idleContext{}, nil
}

type idleContext struct{}

func (idleContext) RequireTLS13() {}

func (idleContext) Client(nc *net.TCPConn, _ string) (session.EngineConn, error) {
	return idleConn{nc}, nil
}
func (idleContext) Server(nc *net.TCPConn) (session.EngineConn, error) { return idleConn{nc}, nil }
func (idleContext) Free()                                              {}

type idleConn struct{ nc *net.TCPConn }

func (idleConn) SetVerify(bool) error            { return nil }
func (idleConn) Handshake(context.Context) error { return nil }
func (idleConn) ReadSome(_ context.Context, limit int) ([]byte, error) {
	return make([]byte, limit), nil
}
func (idleConn) Write(_ context.Context, p []byte) (int, error) { return len(p), nil }
func (idleConn) TryRead(p []byte) (int, error)                  { return len(p), nil }
func (idleConn) TryWrite(p []byte) (int, error)                 { return len(p), nil }
func (idleConn) PeerSubject() string                            { return "" }
func (idleConn) Version() string                                { return "" }
func (c idleConn) CloseContext(context.Context) error           { return c.nc.Close() }
func (c idleConn) Abort() error                                 { return c.nc.Close() }
func (c idleConn) Close() error                                 { return c.nc.Close() }

// readyPeer has a connection with handle 1, and takes raw answers.
func readyPeer(t testing.TB) *peer {
	p := newPeer(t, func(_ *fakeengine.Engine, c *rpc.Config) { c.Session.Engine = idle{} })
	p.conn.SetDeadline(time.Time{})
	p.client(fakeengine.Silent(t))
	p.line(hello)
	p.answer()
	return p
}

// exchange makes a call with bytes that are there already, and reads the answer with its raw bytes into
// room that is there already.
func (p *peer) exchange(msg, room []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(msg); err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.r.Line(); err != nil {
		p.t.Fatal(err)
	}
	if err := p.r.Full(room); err != nil {
		p.t.Fatal(err)
	}
}

// writeOf and readOf are calls with so many raw bytes, and the room for their answers'.
func writeOf(n int) (msg, room []byte) {
	msg = fmt.Appendf(nil, `{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[1],"raw":%d}`+"\n", n)
	return append(msg, make([]byte, n)...), nil
}

func readOf(n int) (msg, room []byte) {
	return fmt.Appendf(nil, `{"jsonrpc":"2.0","id":1,"method":"tls.Read","params":[1,%d]}`+"\n", n), make([]byte, n)
}

// benchCall makes one kind of call, with n bytes of payload.
func benchCall(b *testing.B, n int, msg, room []byte) {
	p := readyPeer(b)
	if n > 0 {
		b.SetBytes(int64(n))
	}
	b.ReportAllocs()
	for b.Loop() {
		p.exchange(msg, room)
	}
}

// BenchmarkBackend is the shortest call there and back, by the long way.
func BenchmarkBackend(b *testing.B) { benchCall(b, 0, []byte(backend+"\n"), nil) }

// The payload of a call, in bytes.
const tiny, block = 64, 64 << 10

func BenchmarkWrite64B(b *testing.B) { msg, room := writeOf(tiny); benchCall(b, tiny, msg, room) }
func BenchmarkWrite64K(b *testing.B) { msg, room := writeOf(block); benchCall(b, block, msg, room) }
func BenchmarkRead64B(b *testing.B)  { msg, room := readOf(tiny); benchCall(b, tiny, msg, room) }
func BenchmarkRead64K(b *testing.B)  { msg, room := readOf(block); benchCall(b, block, msg, room) }

// Data that needs not wait is carried in memory that is there already, however much it is.
func TestWritesAndReadsAllocateNothingThatGrowsWithTheirData(t *testing.T) {
	p := readyPeer(t)
	for _, c := range []struct {
		name string
		call func(n int) (msg, room []byte)
	}{{"tls.Write", writeOf}, {"tls.Read", readOf}} {
		for _, n := range []int{tiny, block} {
			msg, room := c.call(n)
			const most = 1 << 10
			if got := testalloc.PerCall(200, func() { p.exchange(msg, room) }); got > most {
				t.Errorf("%s of %d bytes allocates %d, more than %d", c.name, n, got, most)
			}
		}
	}
}
