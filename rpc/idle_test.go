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

// idleLimit is the idle timeout of these tests. They send all calls before the session is served,
// because on a busy machine the time between two messages could be longer than idleLimit.
const idleLimit = 3 * time.Second

// idling sets the idle timeout of a session.
func idling(_ *fakeengine.Engine, c *rpc.Config) { c.IdleTimeout = idleLimit }

// endsIdle waits until the session ends, and checks that its caller is told of the idle timeout.
func (p *caller) endsIdle() {
	p.t.Helper()
	p.expect(`{"jsonrpc":"2.0","id":null,"error":{"code":-32009,"message":...,"data":{"kind":"timeout"}}}`)
	p.ended()
	if err := p.over(); !errors.Is(err, os.ErrDeadlineExceeded) ||
		!strings.Contains(err.Error(), "nothing has come from the caller") {
		p.t.Errorf("Serve returns %v, want a timeout that says that nothing has come from "+
			"the caller", err)
	}
}

// If nothing comes from the caller within the idle timeout, the session ends, even in the middle of
// a message. It frees its connections.
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
			p := waitingCaller(t, idling, func(_ *fakeengine.Engine, c *rpc.Config) {
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
				t.Errorf("the session has ended after %v, want %v or more", d,
					idleLimit)
			}
		})
	}
}

// A session with a call in flight is not idle. Its idle time begins when the call has ended.
func TestASessionWithACallInFlightIsNotIdle(t *testing.T) {
	t.Parallel()
	// Suppose that tlsd wrongly measured from the last message. It would check every 3 s, and
	// end the session at 6 s, the first check after the call's end at 5.4 s. The right time is
	// 8.4 s: 3 s after the call's end.
	const inFlight = 5400 * time.Millisecond
	p := waitingCaller(t, idling)
	p.send(`{"jsonrpc":"2.0","id":1,"method":"tls.NewServerContext","params":["` + p.cert.CertFile + `","` + p.cert.KeyFile + `"]}` + "\n" +
		`{"jsonrpc":"2.0","id":2,"method":"tls.SetTimeout","params":[1,` +
		itoa(int(inFlight.Milliseconds())) + `]}` + "\n" +
		`{"jsonrpc":"2.0","id":3,"method":"tls.Accept","params":[1,"127.0.0.1",` + itoa(testkit.Port(t)) + `]}` + "\n")
	begun := time.Now()
	p.serve()
	p.answer() // the first two answers, in any order
	p.answer()
	p.expect(`{"jsonrpc":"2.0","id":3,"error":{"code":-32009,"message":...,"data":{"kind":"timeout","op":"tls.Accept","handle":1}}}`)
	p.endsIdle()
	if d := time.Since(begun); d < inFlight+idleLimit {
		t.Errorf("the session has ended after %v, want %v or more", d, inFlight+idleLimit)
	}
}

// A caller that has shut down its sending side can only wait for answers. So its session has no
// idle timeout any more.
func TestACallerThatHasShutDownItsWritingSideIsNotIdle(t *testing.T) {
	t.Parallel()
	p := waitingCaller(t, idling)
	p.send(`{"jsonrpc":"2.0","id":1,"method":"tls.NewServerContext","params":["` + p.cert.CertFile + `","` + p.cert.KeyFile + `"]}` + "\n" +
		`{"jsonrpc":"2.0","id":2,"method":"tls.SetTimeout","params":[1,4000]}` + "\n" +
		`{"jsonrpc":"2.0","id":3,"method":"tls.Accept","params":[1,"127.0.0.1",` + itoa(testkit.Port(t)) + `]}` + "\n")
	p.conn.CloseWrite()
	p.serve()
	p.answer() // the first two answers, in any order
	p.answer()
	p.expect(`{"jsonrpc":"2.0","id":3,"error":{"code":-32009,"message":...,"data":{"kind":"timeout","op":"tls.Accept","handle":1}}}`)
	p.ended()
	if err := p.over(); err != nil {
		t.Errorf("Serve returns %v, want nil", err)
	}
}
