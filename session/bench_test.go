package session_test

import (
	"context"
	"net"
	"testing"

	"tlsd/internal/fakeengine"
	"tlsd/internal/testalloc"
	"tlsd/session"
)

const block = 64 << 10 // bytes

// idle is an engine that encrypts nothing, sends nothing and never has to wait. What a benchmark does
// not call is not there.
type idle struct{ session.Engine }

func (idle) NewClientContext(session.CABundle) (session.EngineContext, error) {
	return idleContext{}, nil
}
func (idle) Backend() string { return "openssl" }

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
func (idleConn) Handshake(context.Context) error                { return nil }
func (idleConn) Write(_ context.Context, p []byte) (int, error) { return len(p), nil }
func (idleConn) TryRead(p []byte) (int, error)                  { return len(p), nil }
func (idleConn) TryWrite(p []byte) (int, error)                 { return len(p), nil }
func (c idleConn) CloseContext(context.Context) error           { return c.nc.Close() }
func (c idleConn) Abort() error                                 { return c.nc.Close() }

// idleSession has a connection, handle 1, whose engine does nothing: what is left is the session's own cost.
func idleSession(tb testing.TB) (*session.Session, session.Handle) {
	tb.Helper()
	s := session.New(session.Config{Engine: idle{}})
	tb.Cleanup(s.End)
	run := func(c *session.Call) any {
		v, err := c.Run()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
	h := run(s.NewClient("localhost", fakeengine.Silent(tb))).(session.Handle)
	run(s.Handshake(h))
	return s, h
}

func tryWrite(tb testing.TB, s *session.Session, h session.Handle, p []byte) {
	if n, done, err := s.TryWrite(h, p); n != len(p) || !done || err != nil {
		tb.Fatal(n, done, err)
	}
}

func tryRead(tb testing.TB, s *session.Session, h session.Handle, p []byte) {
	if n, done, err := s.TryRead(h, p); n != len(p) || !done || err != nil {
		tb.Fatal(n, done, err)
	}
}

func bench(b *testing.B, n int, call func(s *session.Session, h session.Handle, p []byte)) {
	s, h := idleSession(b)
	p := make([]byte, n)
	b.ReportAllocs()
	for b.Loop() {
		call(s, h, p)
	}
}

// The short way, of data that needs not wait.

func BenchmarkTryWrite64K(b *testing.B) {
	bench(b, block, func(s *session.Session, h session.Handle, p []byte) { tryWrite(b, s, h, p) })
}

func BenchmarkTryRead64K(b *testing.B) {
	bench(b, block, func(s *session.Session, h session.Handle, p []byte) { tryRead(b, s, h, p) })
}

// The long way: a Call, which could wait.

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

func TestTryReadAndTryWriteAllocateNothingThatGrowsWithTheirData(t *testing.T) {
	s, h := idleSession(t)
	p := make([]byte, block)
	const most = 256 // bytes
	if got := testalloc.PerCall(200, func() { tryWrite(t, s, h, p) }); got > most {
		t.Errorf("a TryWrite of %d bytes allocates %d, more than %d", block, got, most)
	}
	if got := testalloc.PerCall(200, func() { tryRead(t, s, h, p) }); got > most {
		t.Errorf("a TryRead of %d bytes allocates %d, more than %d", block, got, most)
	}
}
