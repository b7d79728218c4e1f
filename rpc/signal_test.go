package rpc_test

import (
	"io"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/rpc"
)

// tls.Signal takes two descriptors, in the caller's order.

// sendSignalled sends the three calls that make a context, its listener and its signal.
func (p *peer) sendSignalled() {
	p.t.Helper()
	p.begin("tls.NewServerContext", p.cert.CertFile, p.cert.KeyFile)
	p.begin("tls.Listen", 1, "127.0.0.1", 0)
	ours, first := channelPair(p.t)
	raw, err := ours.File() // the second end; ours is the end that the caller has kept
	if err != nil {
		p.t.Fatal(err)
	}
	p.lineWith(`{"jsonrpc":"2.0","id":1,"method":"tls.Signal","params":[1,1]}`, first, raw)
}

// answerSignalled takes the answers to sendSignalled.
func (p *peer) answerSignalled() {
	p.t.Helper()
	for range 3 {
		if r := p.response(); r.Error != nil {
			p.t.Fatalf("call %v: %v", r.ID, r.Error)
		}
	}
}

func TestASignalNeedsBothEndsOfItsPair(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	p.server()
	p.fails(kind.Limit, "tls.Signal", 1, 1)
	kept, one := channelPair(t)
	p.lineWith(`{"jsonrpc":"2.0","id":7,"method":"tls.Signal","params":[1,1]}`, one)
	p.expect(`{"jsonrpc":"2.0","id":7,"error":{"code":-32011,"message":...,"data":...}}`)
	if n, err := kept.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the end that came is still open: %d, %v", n, err)
	}
	p.fails(kind.Params, "tls.Signal", 1, 0)
	p.fails(kind.Params, "tls.Signal", 1)
}

// A caller that polls its signal sends nothing while no client comes, and has no call in flight.
// Its session is not idle, as with a waiting Accept.
func TestASessionThatWaitsForClientsWithASignalIsNotIdle(t *testing.T) {
	t.Parallel()
	// The descriptors set the read deadline to the answer timeout. The server must then go on
	// to the idle timeout.
	p := waitingPeer(t, idling, func(_ *fakeengine.Engine, c *rpc.Config) {
		c.AnswerTimeout = idleLimit / 3
	})
	p.sendSignalled()
	p.serve()
	p.answerSignalled()
	time.Sleep(idleLimit + idleLimit/2) // the promise is about time
	p.silent()
	p.ok("tls.CloseServerContext", 1)
	p.endsIdle()
}
