package session_test

import (
	"context"
	"net"
	"testing"

	"tlsd/internal/testkit"
	"tlsd/openssl"
	"tlsd/session"
)

const block = 64 << 10 // bytes

// idleEngine encrypts nothing, sends nothing and never waits. It has only the methods that
// benchmarks call.
type idleEngine struct{ session.Engine }

func (idleEngine) NewClientContext(session.CABundle) (session.EngineContext, error) {
	return idleContext{}, nil
}
func (idleEngine) Backend() string { return "openssl" }

type idleContext struct{ session.EngineContext }

func (idleContext) Client(nc *net.TCPConn, _ string) (session.EngineConn, error) {
	return idleConn{nc: nc}, nil
}
func (idleContext) Free() {}

type idleConn struct {
	session.EngineConn
	nc *net.TCPConn
}

func (idleConn) SetVerify(bool) error                           { return nil }
func (idleConn) Configure(openssl.ClientSettings) error         { return nil }
func (idleConn) Handshake(context.Context) error                { return nil }
func (idleConn) Write(_ context.Context, p []byte) (int, error) { return len(p), nil }
func (idleConn) SetTag(int32)                                   {}
func (c idleConn) CloseContext(context.Context) error           { return c.nc.Close() }
func (c idleConn) CutContext(context.Context) error             { return c.nc.Close() }
func (c idleConn) Abort() error                                 { return c.nc.Close() }

// idleSession returns a session with one connection, whose engine does nothing. So a benchmark
// measures the session alone.
func idleSession(tb testing.TB) (*session.Session, session.Handle) {
	tb.Helper()
	s := session.New(session.Config{Engine: idleEngine{}})
	tb.Cleanup(s.End)
	run := func(c *session.Call) any {
		v, err := c.Run()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
	h := run(s.NewClient("localhost", testkit.Silent(tb))).(session.Handle)
	run(s.Handshake(h, nil))
	return s, h
}

func bench(b *testing.B, n int, call func(s *session.Session, h session.Handle, p []byte)) {
	s, h := idleSession(b)
	p := make([]byte, n)
	b.ReportAllocs()
	for b.Loop() {
		call(s, h, p)
	}
}

func BenchmarkWriteCall64K(b *testing.B) {
	bench(b, block, func(s *session.Session, h session.Handle, p []byte) {
		if _, err := s.Write(h, p).Run(); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkBackendCall(b *testing.B) {
	bench(b, 0, func(s *session.Session, _ session.Handle, _ []byte) {
		if _, err := s.Backend().Run(); err != nil {
			b.Fatal(err)
		}
	})
}
