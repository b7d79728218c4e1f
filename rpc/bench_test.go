package rpc_test

import (
	"context"
	"encoding/base64"
	"net"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/testkit"
	"tlsd/openssl"
	"tlsd/rpc"
	"tlsd/session"
)

// idle is an engine that encrypts nothing and sends nothing. So a benchmark measures only the way
// of a call to the session, and the way of the answer back to the caller.
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

func (idleConn) SetVerify(bool) error                   { return nil }
func (idleConn) Configure(openssl.ClientSettings) error { return nil }
func (idleConn) Info() (openssl.Info, error)            { return openssl.Info{}, nil }
func (idleConn) Handshake(context.Context) error        { return nil }
func (idleConn) ReadSome(_ context.Context, limit int) ([]byte, error) {
	return make([]byte, limit), nil
}
func (idleConn) Write(_ context.Context, p []byte) (int, error) { return len(p), nil }
func (idleConn) CloseWrite(context.Context) error               { return nil }
func (idleConn) WaitReset(ctx context.Context) error            { <-ctx.Done(); return ctx.Err() }
func (idleConn) SetTag(int32)                                   {}
func (idleConn) PeerSubject() string                            { return "" }
func (idleConn) Version() string                                { return "" }
func (c idleConn) CloseContext(context.Context) error           { return c.nc.Close() }
func (c idleConn) CutContext(context.Context) error             { return c.nc.Close() }
func (c idleConn) Abort() error                                 { return c.nc.Close() }
func (c idleConn) Close() error                                 { return c.nc.Close() }

// BenchmarkBackend measures the shortest call.
func BenchmarkBackend(b *testing.B) { benchCall(b, 0, backend) }

// block is the size of the payload of BenchmarkWrite64K, in bytes.
const block = 64 << 10

// BenchmarkWrite64K measures a call with 64 KiB of payload, as base64.
func BenchmarkWrite64K(b *testing.B) {
	data := base64.StdEncoding.EncodeToString(make([]byte, block))
	benchCall(b, block, `{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[1,"`+data+`"]}`)
}

// benchCall makes the same call again and again, in a session that has a connection with handle 1.
// n is the size of the call's payload in bytes.
func benchCall(b *testing.B, n int, call string) {
	p := newCaller(b, func(_ *fakeengine.Engine, c *rpc.Config) { c.Session.Engine = idle{} })
	p.conn.SetDeadline(time.Time{})
	p.client(testkit.Silent(b))
	if n > 0 {
		b.SetBytes(int64(n))
	}
	msg := []byte(call + "\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.conn.Write(msg); err != nil {
			b.Fatal(err)
		}
		if _, err := p.r.Line(); err != nil {
			b.Fatal(err)
		}
	}
}
