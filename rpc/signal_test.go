package rpc_test

import (
	"io"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/rpc"
)

// These tests are about tls.Signal, which takes two descriptors: both ends of a pair of sockets.

// sendSignalled sends three calls: they make a server context, let it listen on an address, and
// give it the pair of sockets of a tls.Signal.
func (p *caller) sendSignalled() {
	p.t.Helper()
	p.begin("tls.NewServerContext", p.cert.CertFile, p.cert.KeyFile)
	p.begin("tls.Listen", 1, "127.0.0.1", 0)
	ours, first := channelPair(p.t)
	raw, err := ours.File() // a duplicate of the end that the caller keeps
	if err != nil {
		p.t.Fatal(err)
	}
	p.lineWith(`{"jsonrpc":"2.0","id":1,"method":"tls.Signal","params":[1,1]}`, first, raw)
}

// answerSignalled reads the answers to the calls of sendSignalled.
func (p *caller) answerSignalled() {
	p.t.Helper()
	for range 3 {
		if r := p.response(); r.Error != nil {
			p.t.Fatalf("the call with the id %v fails with %v", r.ID, r.Error)
		}
	}
}

// tls.Signal fails if one of the two descriptors is missing, or both. If only one has come, tlsd
// closes it.
func TestASignalNeedsBothEndsOfItsPair(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	p.server()
	p.fails(kind.Limit, "tls.Signal", 1, 1)
	kept, one := channelPair(t)
	p.lineWith(`{"jsonrpc":"2.0","id":7,"method":"tls.Signal","params":[1,1]}`, one)
	p.expect(`{"jsonrpc":"2.0","id":7,"error":{"code":-32011,"message":...,"data":...}}`)
	if n, err := kept.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("tlsd has not closed the only end that came: a Read of the other end "+
			"returns %d, %v, want io.EOF", n, err)
	}
	p.fails(kind.Params, "tls.Signal", 1, 0)
	p.fails(kind.Params, "tls.Signal", 1)
}

// A caller that has called tls.Signal polls the pair of sockets. While no client comes, it sends
// nothing and has no call in flight. But its session does not count as idle, because the session
// waits for clients, as during an Accept. When the server context is closed, the session can be
// idle.
func TestASessionThatWaitsForClientsWithASignalIsNotIdle(t *testing.T) {
	t.Parallel()
	// When descriptors arrive, tlsd sets the session's read deadline to the answer timeout, to
	// close descriptors that no call takes. When this deadline has passed, tlsd must set the
	// idle timeout again.
	p := waitingCaller(t, idling, func(_ *fakeengine.Engine, c *rpc.Config) {
		c.AnswerTimeout = idleLimit / 3
	})
	p.sendSignalled()
	p.serve()
	p.answerSignalled()
	time.Sleep(idleLimit + idleLimit/2) // longer than idleLimit
	p.silent()
	p.ok("tls.CloseServerContext", 1)
	p.endsIdle()
}
