package rpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"
	"unicode"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/openssl"
	"tlsd/rpc"
	"tlsd/rpc/wire"
	"tlsd/session"
)

// failing returns a function that makes the operation op of the engine fail with err.
func failing(op fakeengine.Op, err error) func(*fakeengine.Engine, *rpc.Config) {
	return func(e *fakeengine.Engine, _ *rpc.Config) {
		e.Hook = func(_ context.Context, o fakeengine.Op) error {
			if o == op {
				return err
			}
			return nil
		}
	}
}

// For each kind of error, the answer has the right code and data. tls.LastError returns the message
// of the answer, also after later calls that succeed.
func TestEveryErrorIsTheLastError(t *testing.T) {
	t.Parallel()
	type set = func(*fakeengine.Engine, *rpc.Config)
	none := set(func(*fakeengine.Engine, *rpc.Config) {})
	expired := &openssl.VerifyError{Code: 10, Reason: "certificate has expired", Depth: 1,
		Subject: "/CN=x", Store: "system"}
	alert := &openssl.HandshakeError{Reason: "alert", Queue: []string{"error:1", "error:2"}}
	reset := &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	seen := map[kind.Kind]bool{}
	for _, c := range []struct {
		name string
		code int
		data wire.ErrorData
		set  set
		call func(*caller) response // returns the answer with the error
	}{
		{"not JSON", -32700, wire.ErrorData{Kind: kind.Params}, none,
			func(p *caller) response {
				p.line("{")
				return p.response()
			}},
		{"no request", -32600, wire.ErrorData{Kind: kind.Params}, none,
			func(p *caller) response {
				p.line("{}")
				return p.response()
			}},
		{"no method", -32601, wire.ErrorData{Kind: kind.Params}, none,
			func(p *caller) response { return p.call("tls.Nothing") }},
		{"parameters", -32602, wire.ErrorData{Kind: kind.Params, Op: "tls.Read"}, none,
			func(p *caller) response { return p.call("tls.Read", 1) }},
		{"handle", -32001,
			wire.ErrorData{Kind: kind.Handle, Op: "tls.Read", Handle: 7}, none,
			func(p *caller) response { return p.call("tls.Read", 7, 1) }},
		{"state", -32002, wire.ErrorData{Kind: kind.State, Op: "tls.Read", Handle: 1}, none,
			func(p *caller) response {
				p.ok("tls.NewClient", "localhost", p.echo())
				return p.call("tls.Read", 1, 1)
			}},
		{"state, Hello", -32002, wire.ErrorData{Kind: kind.State, Op: "tls.Hello"}, none,
			func(p *caller) response {
				p.server()
				return p.call("tls.Hello", 1, []string{}, 5)
			}},
		{"backend", -32003, wire.ErrorData{Kind: kind.Backend, Op: "tls.NewClient"},
			func(_ *fakeengine.Engine, c *rpc.Config) {
				c.Session.Engine = session.Stub(errors.New("tried libssl.so.3"))
			},
			func(p *caller) response {
				return p.call("tls.NewClient", "localhost", 1)
			}},
		{"file", -32004,
			wire.ErrorData{Kind: kind.File, Op: "tls.SetCaBundle",
				Errno: "ENOENT"}, none,
			func(p *caller) response {
				return p.call("tls.SetCaBundle",
					"/nonexistent/\"quoted\" <&>\u2028")
			}},
		{"connect", -32005,
			wire.ErrorData{Kind: kind.Connect, Op: "tls.NewClient",
				Errno: "ECONNREFUSED"},
			none,
			func(p *caller) response {
				return p.call("tls.NewClient", "127.0.0.1", testkit.Port(p.t))
			}},
		{"handshake", -32006,
			wire.ErrorData{Kind: kind.Handshake, Op: "tls.Handshake", Handle: 1,
				OpenSSL: alert.Queue},
			failing(fakeengine.Handshake, alert), handshake},
		{"verify", -32007,
			wire.ErrorData{Kind: kind.Verify, Op: "tls.Handshake", Handle: 1,
				Verify: &wire.VerifyDetail{Code: 10,
					Reason: "certificate has expired",
					Depth:  1, Subject: "/CN=x", Store: "system"}},
			failing(fakeengine.Handshake, expired), handshake},
		{"io", -32008,
			wire.ErrorData{Kind: kind.IO, Op: "tls.Read", Handle: 1,
				Errno: "ECONNRESET"},
			failing(fakeengine.Read, reset),
			func(p *caller) response {
				return p.call("tls.Read", p.client(p.echo()), 1)
			}},
		{"timeout", -32009, wire.ErrorData{Kind: kind.Timeout, Op: "tls.NewClient"},
			func(_ *fakeengine.Engine, c *rpc.Config) {
				c.Session.Timeouts = session.Timeouts{
					Connect: 30 * time.Millisecond}
			},
			func(p *caller) response {
				return p.call("tls.NewClient", "127.0.0.1", testkit.Unanswered(p.t))
			}},
		{"cancelled", -32010,
			wire.ErrorData{Kind: kind.Cancelled, Op: "tls.Read", Handle: 1},
			none,
			func(p *caller) response {
				h := p.client(p.echo())
				id := p.begin("tls.Read", h, 1)
				p.line(fmt.Sprintf(`{"jsonrpc":"2.0","method":"$/cancelRequest",`+
					`"params":[%d]}`, id))
				return p.response()
			}},
		{"limit", -32011, wire.ErrorData{Kind: kind.Limit, Op: "tls.NewClient"},
			func(_ *fakeengine.Engine, c *rpc.Config) {
				c.Session.Limits = session.Limits{Handles: 1}
			},
			func(p *caller) response {
				p.server()
				return p.call("tls.NewClient", "localhost", 1)
			}},
		{"internal", -32603, wire.ErrorData{Kind: kind.Internal, Op: "tls.NewClient"},
			failing(fakeengine.NewClientContext, io.ErrNoProgress),
			func(p *caller) response {
				return p.call("tls.NewClient", "localhost", p.echo())
			}},
	} {
		seen[c.data.Kind] = true
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newCaller(t, c.set)
			if got := p.ok("tls.LastError"); got != "" {
				t.Errorf("LastError is %q before any error, want an empty text",
					got)
			}
			r := c.call(p)
			if r.Error == nil {
				t.Fatalf("the call returns %v, want an error", r.Result)
			}
			if r.Error.Code != c.code {
				t.Errorf("the error's code is %d, want %d", r.Error.Code, c.code)
			}
			if !reflect.DeepEqual(r.Error.Data, &c.data) {
				t.Errorf("the error's data is %+v, want %+v", r.Error.Data, &c.data)
			}
			for range 2 {
				if got := p.ok("tls.LastError"); got != r.Error.Message ||
					got == "" {
					t.Errorf("LastError is %q, want the message of the "+
						"answer, which is %q", got, r.Error.Message)
				}
				p.call("tls.Backend") // a success does not clear the last error
			}
		})
	}
	for _, k := range kind.All {
		// Two kinds have no case here: "denied" needs a policy, and "lost" comes with the
		// id null, so it is not the answer to a call.
		if !seen[k] && k != kind.Denied && k != kind.Lost {
			t.Errorf("this test has no case for the kind %s", k)
		}
	}
}

// handshake connects to an echo server and calls tls.Handshake.
func handshake(p *caller) response {
	return p.call("tls.Handshake", json.Number(p.ok("tls.NewClient", "localhost", p.echo())))
}

// A notification is not answered. But if it fails, its error becomes the last error.
func TestErrorOfANotificationIsTheLastError(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	want := p.fails("handle", "tls.Close", 7).Message
	p.fails("handle", "tls.Close", 8)
	p.line(`{"jsonrpc":"2.0","method":"tls.Close","params":[7]}`)
	if got := p.ok("tls.LastError"); got != want {
		t.Errorf("LastError is %q, want the notification's error %q", got, want)
	}
}

// The message of an error has no control characters, even if it names a path that has some.
func TestMessageIsText(t *testing.T) {
	t.Parallel()
	p := newCaller(t)
	dir := filepath.Join(t.TempDir(), "a\nb\x1b[31m\x7f\u0085")
	e := p.fails("file", "tls.SetCaBundle", dir)
	if got := p.ok("tls.LastError"); got != e.Message {
		t.Errorf("LastError is %q, want the message of the answer, %q", got, e.Message)
	}
	for _, c := range e.Message {
		if unicode.IsControl(c) {
			t.Errorf("the message has a control character: %q", e.Message)
		}
	}
}
