package rpc_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/testkit"
	"tlsd/rpc"
)

// idleLimit is the limit of these tests. Their calls are sent before the limit runs, because a busy
// machine may take longer between two messages.
const idleLimit = 3 * time.Second

func idling(_ *fakeengine.Engine, c *rpc.Config) { c.IdleTimeout = idleLimit }

// endsIdle reads the last line of an idle session, and checks the reason of the end.
func (p *peer) endsIdle() {
	p.t.Helper()
	p.expect(`{"jsonrpc":"2.0","id":null,"error":{"code":-32009,"message":...,"data":{"kind":"timeout"}}}`)
	p.ended()
	if err := p.over(); !errors.Is(err, os.ErrDeadlineExceeded) ||
		!strings.Contains(err.Error(), "nothing has come from the caller") {
		p.t.Errorf("Serve returned %v", err)
	}
}

// TestIdleSessionEnds: it ends in the middle of a message too, and frees what it owned.
func TestIdleSessionEnds(t *testing.T) {
	t.Parallel()
	for name, part := range map[string]string{
		"between messages": "",
		"in a line":        `{"jsonrpc":"2.0","id":1,`,
		"in a long line":   `{"jsonrpc":"2.0","id":1,` + strings.Repeat(" ", 90_000),
		"in a batch":       `[{"jsonrpc":"2.0","id":1,"method":"tls.Backend"},`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := waitingPeer(t, idling, func(_ *fakeengine.Engine, c *rpc.Config) {
				c.Session.Engine = idle{}
			})
			p.send(`{"jsonrpc":"2.0","id":1,"method":"tls.NewClient","params":["127.0.0.1",` + itoa(testkit.Silent(t)) + "]}\n" +
				`{"jsonrpc":"2.0","id":2,"method":"tls.Handshake","params":[1]}` + "\n" + part)
			begun := time.Now()
			p.serve()
			p.answer()
			p.answer()
			p.endsIdle()
			if d := time.Since(begun); d < idleLimit {
				t.Errorf("it has ended after %v already", d)
			}
		})
	}
}

// TestASessionWithACallInFlightIsNotIdle: the idle time begins when the call has ended.
func TestASessionWithACallInFlightIsNotIdle(t *testing.T) {
	t.Parallel()
	// A server that began the idle time at the last message would end the session at a
	// multiple of the limit: after 6 s. The call ends 0.6 s before, after 5.4 s.
	const inFlight = 5400 * time.Millisecond
	p := waitingPeer(t, idling)
	p.send(`{"jsonrpc":"2.0","id":1,"method":"tls.NewServerContext","params":["` + p.cert.CertFile + `","` + p.cert.KeyFile + `"]}` + "\n" +
		`{"jsonrpc":"2.0","id":2,"method":"tls.SetTimeout","params":[1,` +
		itoa(int(inFlight.Milliseconds())) + `]}` + "\n" +
		`{"jsonrpc":"2.0","id":3,"method":"tls.Accept","params":[1,"127.0.0.1",` + itoa(testkit.Port(t)) + `]}` + "\n")
	begun := time.Now()
	p.serve()
	p.answer() // these two in any order
	p.answer()
	p.expect(`{"jsonrpc":"2.0","id":3,"error":{"code":-32009,"message":...,"data":{"kind":"timeout","op":"tls.Accept","handle":1}}}`)
	p.endsIdle()
	if d := time.Since(begun); d < inFlight+idleLimit {
		t.Errorf("it has ended after %v already", d)
	}
}

// TestACallerThatHasShutDownItsWritingSideIsNotIdle: it waits for an answer.
func TestACallerThatHasShutDownItsWritingSideIsNotIdle(t *testing.T) {
	t.Parallel()
	p := waitingPeer(t, idling)
	p.send(`{"jsonrpc":"2.0","id":1,"method":"tls.NewServerContext","params":["` + p.cert.CertFile + `","` + p.cert.KeyFile + `"]}` + "\n" +
		`{"jsonrpc":"2.0","id":2,"method":"tls.SetTimeout","params":[1,4000]}` + "\n" +
		`{"jsonrpc":"2.0","id":3,"method":"tls.Accept","params":[1,"127.0.0.1",` + itoa(testkit.Port(t)) + `]}` + "\n")
	p.conn.CloseWrite()
	p.serve()
	p.answer() // these two in any order
	p.answer()
	p.expect(`{"jsonrpc":"2.0","id":3,"error":{"code":-32009,"message":...,"data":{"kind":"timeout","op":"tls.Accept","handle":1}}}`)
	p.ended()
	if err := p.over(); err != nil {
		t.Errorf("Serve returned %v", err)
	}
}
