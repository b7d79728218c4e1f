package rpc_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
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

func benchPeer(b *testing.B) *peer {
	p := newPeer(b, func(_ *fakeengine.Engine, c *rpc.Config) { c.Session.Engine = idle{} })
	p.conn.SetDeadline(time.Time{})
	return p
}

// readyPeer has a connection with handle 1, and takes raw answers.
func readyPeer(b *testing.B) *peer {
	p := benchPeer(b)
	p.client(fakeengine.Silent(b))
	p.line(hello)
	p.answer()
	return p
}

// BenchmarkBackend is the shortest call there and back.
func BenchmarkBackend(b *testing.B) {
	p := benchPeer(b)
	b.ReportAllocs()
	for b.Loop() {
		p.line(backend)
		p.answer()
	}
}

const block = 64 << 10

// BenchmarkWrite64K sends blobs of 64 KiB as raw bytes.
func BenchmarkWrite64K(b *testing.B) {
	p := readyPeer(b)
	msg := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[1],"raw":%d}`+"\n%s", block, make([]byte, block))
	b.SetBytes(block)
	b.ReportAllocs()
	for b.Loop() {
		p.send(msg)
		p.answer()
	}
}

// BenchmarkRead64K gets blobs of 64 KiB as raw bytes.
func BenchmarkRead64K(b *testing.B) {
	p := readyPeer(b)
	msg := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tls.Read","params":[1,%d]}`, block)
	b.SetBytes(block)
	b.ReportAllocs()
	for b.Loop() {
		p.line(msg)
		p.answer()
		p.raw(block)
	}
}
