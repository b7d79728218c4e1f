package rpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/rpc"
	"tlsd/rpc/wire"
	"tlsd/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A caller calls tlsd, in a session of its own. The session's engine is internal/fakeengine, which
// uses crypto/tls in place of OpenSSL.
type caller struct {
	t     testing.TB
	conn  *net.UnixConn
	r     *wire.Reader
	serve func() // begins to serve
	stop  func() // ends the context of Serve

	served chan struct{} // closed when Serve has returned
	err    error         // the result of Serve

	eng  *fakeengine.Engine
	ca   *testcert.CA
	cert *testcert.Cert
	id   int
}

// newCaller serves a new session, and returns its caller. The functions in adjust may change the
// engine and the configuration.
func newCaller(t testing.TB, adjust ...func(*fakeengine.Engine, *rpc.Config)) *caller {
	t.Helper()
	p := waitingCaller(t, adjust...)
	p.serve()
	return p
}

// defaults gives a session the timeouts that the product has by default.
func defaults(_ *fakeengine.Engine, c *rpc.Config) { c.Session.Timeouts = session.Timeouts{} }

// waitingCaller is like newCaller, but its session is served only when the test calls the field
// serve. So the test can send calls before the idle timeout begins. The calls must fit into the
// buffer of the socket, which takes at least 100 kB.
func waitingCaller(t testing.TB, adjust ...func(*fakeengine.Engine, *rpc.Config)) *caller {
	t.Helper()
	p := &caller{t: t, served: make(chan struct{}), eng: fakeengine.New(t)}
	p.ca = testcert.NewCA(t, "Test CA")
	p.cert = p.ca.Issue(t, testcert.Leaf{CN: "localhost", DNS: []string{"localhost"},
		IPs: []string{"127.0.0.1"}})
	p.eng.System = p.ca.Pool()
	cfg := rpc.Config{Version: "1.2.3-test", Session: session.Config{Engine: p.eng,
		Timeouts: fakeengine.Patient(session.Timeouts{})}}
	for _, f := range adjust {
		f(p.eng, &cfg)
	}
	ours, theirs := testkit.UnixPair(t)
	p.conn, p.r = ours, wire.NewReader(ours, 64<<20)
	ours.SetDeadline(time.Now().Add(testkit.Patience))
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := func() { cancel(errors.New("the test is over")) }
	p.stop = stop
	p.serve = func() {
		go func() {
			defer close(p.served)
			p.err = rpc.Serve(ctx, theirs, cfg)
		}()
		t.Cleanup(func() {
			ours.Close()
			p.over()
			stop()
		})
	}
	return p
}

// The method over waits for the end of Serve and returns its error. No context and no connection of
// the engine may be open then.
func (p *caller) over() error {
	p.t.Helper()
	select {
	case <-p.served:
	case <-time.After(testkit.Patience):
		p.t.Fatalf("Serve did not return in %v", testkit.Patience)
	}
	if contexts, conns := p.eng.Open(); contexts+conns != 0 {
		p.t.Errorf("%d contexts and %d connections are open after Serve, want none",
			contexts, conns)
	}
	return p.err
}

// send sends bytes as they are.
func (p *caller) send(data string) {
	p.t.Helper()
	if _, err := io.WriteString(p.conn, data); err != nil {
		p.t.Fatalf("the caller cannot send: %v", err)
	}
}

// line sends a line.
func (p *caller) line(s string) { p.t.Helper(); p.send(s + "\n") }

// answer reads a line.
func (p *caller) answer() string {
	p.t.Helper()
	line, err := p.r.Line()
	if err != nil {
		p.t.Fatalf("the caller has got no answer: %v", err)
	}
	return string(line)
}

// expect reads an answer, which must match want (see matches).
func (p *caller) expect(want string) {
	p.t.Helper()
	if got := p.answer(); !matches(want, got) {
		p.t.Fatalf("got  %s\nwant %s", got, want)
	}
}

// The method silent makes a new call. The next answer must be the answer to this call, so tlsd has
// sent no other answer before.
func (p *caller) silent() {
	p.t.Helper()
	p.line(`{"jsonrpc":"2.0","id":"silent?","method":"tls.Backend"}`)
	p.expect(`{"jsonrpc":"2.0","id":"silent?","result":"openssl"}`)
}

// The method ended checks that tlsd has closed the session's connection, and that nothing more
// comes. tlsd has read all that the caller has sent, so the connection is not reset.
func (p *caller) ended() {
	p.t.Helper()
	if line, err := p.r.Line(); err != io.EOF {
		p.t.Fatalf("the next line is %q, %v; want the end of the session's connection",
			line, err)
	}
}

// The method cutOff is like ended. But tlsd may have left bytes of the caller unread, and then the
// system resets the connection.
func (p *caller) cutOff() {
	p.t.Helper()
	line, err := p.r.Line()
	if err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
		p.t.Fatalf("the next line is %q, %v; want the end of the session's connection, or "+
			"its reset", line, err)
	}
}

// A response is a decoded answer.
type response struct {
	ID     any
	Result any
	Error  *wire.Error
}

// response reads an answer and decodes it.
func (p *caller) response() response {
	p.t.Helper()
	var r response
	line := p.answer()
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	if err := d.Decode(&r); err != nil {
		p.t.Fatalf("the answer cannot be decoded: %v in %s", err, line)
	}
	return r
}

// begin sends a call with parameters by position, and returns its id.
func (p *caller) begin(method string, params ...any) int {
	p.t.Helper()
	p.id++
	if params == nil {
		params = []any{}
	}
	b, err := json.Marshal(params)
	if err != nil {
		p.t.Fatal(err)
	}
	p.line(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":%q,"params":%s}`, p.id, method, b))
	return p.id
}

// call makes a call. The next answer must be the answer to this call.
func (p *caller) call(method string, params ...any) response {
	p.t.Helper()
	id := p.begin(method, params...)
	r := p.response()
	if fmt.Sprint(r.ID) != fmt.Sprint(id) {
		p.t.Fatalf("%s: the answer has id %v, want %d", method, r.ID, id)
	}
	return r
}

// ok makes a call that must succeed, and returns its result as text.
func (p *caller) ok(method string, params ...any) string {
	p.t.Helper()
	r := p.call(method, params...)
	if r.Error != nil {
		p.t.Fatalf("%s must succeed, but gets the error %v", method, r.Error)
	}
	return fmt.Sprint(r.Result)
}

// The method fails makes a call, which must fail with the kind k.
func (p *caller) fails(k kind.Kind, method string, params ...any) *wire.Error {
	p.t.Helper()
	r := p.call(method, params...)
	if r.Error == nil || r.Error.Data == nil || r.Error.Data.Kind != k {
		p.t.Fatalf("%s: got the result %v and the error %+v, want an error of kind %s",
			method, r.Result, r.Error, k)
	}
	return r.Error
}

// client opens a connection that has done its handshake, and returns its handle.
func (p *caller) client(port int) json.Number {
	p.t.Helper()
	h := json.Number(p.ok("tls.NewClient", "localhost", port))
	p.ok("tls.Handshake", h)
	return h
}

// server makes a server context, and returns its handle.
func (p *caller) server() json.Number {
	p.t.Helper()
	return json.Number(p.ok("tls.NewServerContext", p.cert.CertFile, p.cert.KeyFile))
}

// echo starts a TLS server that sends back what it receives, and returns its port.
func (p *caller) echo() int { return testkit.Echo(p.t, p.cert.TLS()) }

// matches says whether two JSON texts have the same value. In want, three dots stand for any
// value. The elements of an array may have any order.
func matches(want, got string) bool {
	var w, g any
	if json.Unmarshal([]byte(strings.ReplaceAll(want, "...", `"\u0000 any"`)), &w) != nil {
		panic("not JSON: " + want)
	}
	return json.Unmarshal([]byte(got), &g) == nil && same(w, g)
}

func same(want, got any) bool {
	if s, ok := want.(string); ok && s == "\x00 any" {
		return true
	}
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for k, v := range w {
			gv, there := g[k]
			if !there || !same(v, gv) {
				return false
			}
		}
		return true
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return false
		}
		rest := append([]any{}, g...)
		for _, v := range w {
			found := false
			for i, gv := range rest {
				if same(v, gv) {
					rest = append(rest[:i], rest[i+1:]...)
					found = true
					break
				}
			}
			if !found {
				return false
			}
		}
		return true
	default:
		return want == got
	}
}

func TestMatches(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want, got string
		match     bool
	}{
		{`{"a":1}`, `{"a":1}`, true},
		{`{"a":1}`, `{"a":2}`, false},
		{`{"a":1}`, `{"a":1,"b":2}`, false},
		{`{"a":1,"b":2}`, `{"a":1}`, false},
		{`{"a":null}`, `{}`, false},
		{`{"a":...}`, `{"a":{"x":[]}}`, true},
		{`{"a":...}`, `{}`, false},
		{`[1,2]`, `[2,1]`, true},
		{`[1,1]`, `[1,2]`, false},
		{`1`, `"1"`, false},
		{`1`, `nonsense`, false},
	} {
		if matches(c.want, c.got) != c.match {
			t.Errorf("matches(%s, %s) is not %v", c.want, c.got, c.match)
		}
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
