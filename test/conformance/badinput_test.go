package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tlsd/internal/ours"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
	"tlsd/rpc/wire"
	"tlsd/session"
)

// A call with a wrong parameter, with a wrong handle, or in a wrong state fails. The error names
// what is wrong, and the session goes on.

// twoSessions has a session that gets bad input, and a second session that gets none. Each of them
// has an open connection. The test uses both connections to show that the bad input has harmed
// nothing else.
type twoSessions struct {
	w     *world
	e     us
	ctx   context.Context
	s     ours.Session
	port  int          // a TLS server for new connections
	mine  [2]stream    // both ends of the connection of s
	other [2]stream    // both ends of the connection of quiet
	quiet ours.Session // the second session, which must see no error
}

func newTwoSessions(t *testing.T, e us, w *world) *twoSessions {
	t.Helper()
	p := &twoSessions{w: w, e: e, ctx: testkit.Bounded(t), port: serve(t, w.cert)}
	p.mine[0], p.mine[1] = connect(t, w, e, goEndpoint{}, dialOptions{}, listenOptions{})
	p.other[0], p.other[1] = connect(t, w, e, goEndpoint{}, dialOptions{}, listenOptions{})
	p.s, p.quiet = p.mine[0].(ourStream).S, p.other[0].(ourStream).S
	return p
}

// The method unharmed checks that the open connections of both sessions work, and that the second
// session has no error. It also checks that the session with the bad input can make a new
// connection.
func (p *twoSessions) unharmed(t *testing.T) {
	t.Helper()
	for _, c := range [][2]stream{p.mine, p.other} {
		greet(t, p.e, goEndpoint{}, c[0], c[1])
	}
	if last, err := p.quiet.LastError(p.ctx); last != "" || err != nil {
		t.Errorf("after bad input, another session's tls.LastError is %q, %v; want none",
			last, err)
	}
	h := p.open(t)
	if err := p.s.Handshake(p.ctx, h); err != nil {
		t.Errorf("after bad input, the handshake of a new connection fails: %v", err)
	}
	if err := p.s.CloseConn(p.ctx, h); err != nil {
		t.Errorf("after bad input, tls.Close of a new connection fails: %v", err)
	}
}

// open makes a connection to the server at p.port, without a handshake.
func (p *twoSessions) open(t *testing.T) client.Handle {
	t.Helper()
	h, err := p.s.NewClient(p.ctx, "localhost", p.port)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// want is the error with which a call must fail.
type want struct {
	kind   client.Kind
	code   int // 0: the code of the kind
	op     string
	handle int // 0: none
	errno  string
	says   []string // texts that the message must have; case is ignored
}

// The method refused checks a failure, as checkError does. Then it checks that nothing else has
// changed, as the method unharmed does.
func (p *twoSessions) refused(t *testing.T, err error, w want) {
	t.Helper()
	p.checkError(t, err, w)
	p.unharmed(t)
}

// checkError checks a failure: its kind, code and detail, and its text. LastError has to give the
// text too.
func (p *twoSessions) checkError(t *testing.T, err error, w want) {
	t.Helper()
	e := failure(err)
	if e == nil {
		t.Errorf("the call returns %v; want an error of kind %s", err, w.kind)
		return
	}
	if w.handle != 0 {
		w.says = append(w.says, fmt.Sprint("handle ", w.handle))
	}
	if w.code == 0 {
		w.code = wire.Codes[w.kind]
	}
	if tells(e) && (e.Kind != w.kind || e.Code != w.code || e.Data.Op != w.op ||
		int(e.Data.Handle) != w.handle || e.Data.Errno != w.errno) {
		t.Errorf("the error %q has kind %s, code %d, data %+v;\nwant kind %s, code %d, "+
			"op %s, handle %d, errno %q", e.Message, e.Kind, e.Code, e.Data, w.kind,
			w.code, w.op, w.handle, w.errno)
	}
	if !mentions(e, append(w.says, w.op)...) {
		t.Errorf("the error is %q; want the texts %q and the method in it", e.Message,
			w.says)
	}
	if last, err := p.s.LastError(p.ctx); err != nil || last != e.Message {
		t.Errorf("tls.LastError: %q, %v; want %q", last, err, e.Message)
	}
}

// The methods, with a good value and with wrong values of each parameter.
var methods = []struct {
	name     string
	params   []param
	optional int // how many of the last parameters may be left out
}{
	{"tls.NewClient", []param{host, port}, 0},
	{"tls.Handshake", []param{handle, channel}, 1},
	{"tls.Write", []param{handle, {"data", `"aGk="`, []string{`7`, `null`, `true`, `["aGk="]`, `{}`, `"aGk"`, `"a GK="`, `"__8="`, `"aGl="`}}}, 0},
	{"tls.Read", []param{handle, {"maxBytes", "1", integers("0", "16777217")}}, 0},
	{"tls.Close", []param{handle}, 0},
	{"tls.Status", []param{handle}, 0},
	{"tls.Flush", []param{handle, {"bytes", "1", integers("-1")}}, 0},
	{"tls.Shutdown", []param{handle}, 0},
	{"tls.SetInsecureSkipVerify", []param{handle, {"on", "1", integers("-1", "2")}}, 0},
	{"tls.NewServerContext", []param{path("certFile"), path("keyFile")}, 0},
	{"tls.Accept", []param{ctxHandle, {"host", `"localhost"`, orNone(texts(255))}, anyPort, channel}, 1},
	{"tls.Listen", []param{ctxHandle, host, anyPort}, 0},
	{"tls.SetCertificate", []param{handle, {"serverName", `""`, orNone(texts(255))}, path("certFile"), path("keyFile")}, 0},
	{"tls.SetOption", []param{handle, {"name", `"alpn"`, texts(64)}, {"value", `"h2"`, orNone(texts(65535))}}, 0},
	{"tls.ReadPlain", []param{handle, {"maxBytes", "1", integers("0", "16777217")}}, 0},
	{"tls.WritePlain", []param{handle, {"data", `"aGk="`, []string{`7`, `null`, `"aGk"`}}}, 0},
	{"tls.Wait", []param{{"milliseconds", "1", integers("-2147483649", "2147483648")}}, 0},
	{"tls.CloseServerContext", []param{ctxHandle}, 0},
	{"tls.SetCaBundle", []param{{"path", `"/nonexistent"`, orNone(texts(4095))}}, 0},
	{"tls.PeerCertSubject", []param{handle}, 0},
	{"tls.SetTimeout", []param{{"handle", "1", integers("-1", "2147483648",
		"99999999999999999999")}, {"milliseconds", "1", integers("-1", "2147483648")}}, 0},
	{"tls.Backend", nil, 0},
	{"tls.Version", []param{handle}, 1},
	{"tls.LastError", nil, 0},
}

type param struct {
	name  string
	good  string   // JSON
	wrong []string // JSON
}

var (
	handle    = param{"handle", "1", integers("0", "-1", "2147483648", "99999999999999999999")}
	ctxHandle = param{"ctxHandle", "1", handle.wrong}
	host      = param{"host", `"localhost"`, texts(255)}
	port      = param{"port", "443", integers("0", "-1", "65536", "4294967739")}
	anyPort   = param{"port", "443", integers("-1", "65536", "4294967739")}
	channel   = param{"channel", "0", integers("-1", "2")}
)

func path(name string) param { return param{name, `"/nonexistent"`, texts(4095)} }

// integers returns wrong values for a parameter that takes an integer: the given numbers, which are
// outside of the parameter's range, and JSON that is no integer.
func integers(outside ...string) []string {
	return append(outside, `"1"`, `1.0`, `1.5`, `1e0`, `true`, `null`, `[1]`, `{}`)
}

// texts returns wrong values for a parameter that takes a string. The string must have at least 1
// byte, and at most the given number of bytes.
func texts(most int) []string {
	return []string{`1`, `null`, `false`, `["x"]`, `{}`, `""`, `"a\u0000b"`, `"` + strings.Repeat("x", most+1) + `"`}
}

// orNone removes the empty string from wrong values, for a parameter that may be empty.
func orNone(wrong []string) []string {
	return slices.DeleteFunc(wrong, func(s string) bool { return s == `""` })
}

// If the number, the type or the range of parameters is wrong, the call fails with kind params. The
// error names the method and the parameter. The test tries parameters by position and by name.
func TestBadParameters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	needsLevel(t, bareDaemon)
	p := newTwoSessions(t, us{ours.Daemon{D: daemon(t)}}, w)
	call := func(method, params string) error { // params is sent as it is
		return p.s.(*client.Client).Call(p.ctx, method, json.RawMessage(params), nil)
	}
	check := func(t *testing.T, method, params string, says ...string) {
		t.Helper()
		err := call(method, params)
		p.checkError(t, err, want{kind: client.KindParams, op: method, says: says})
		if t.Failed() {
			t.Fatalf("the call that failed this test was %s with the parameters "+
				"%.200s", method, params)
		}
	}
	for _, m := range methods {
		t.Run(m.name, func(t *testing.T) {
			p.ctx = testkit.Bounded(t)
			var good, named []string
			for _, p := range m.params {
				good = append(good, p.good)
				named = append(named, fmt.Sprintf("%q:%s", p.name, p.good))
			}
			join := func(all []string) string { return strings.Join(all, ",") }
			list := func(values []string) string { return "[" + join(values) + "]" }
			object := func(members []string) string { return "{" + join(members) + "}" }

			check(t, m.name, list(append(slices.Clone(good), "1")),
				fmt.Sprint("got ", len(good)+1))
			check(t, m.name, object(append(slices.Clone(named), `"extra":1`)), "extra")
			for i, p := range m.params {
				if len(m.params)-i > m.optional {
					check(t, m.name, list(good[:i]), p.name)
					without := slices.Delete(slices.Clone(named), i, i+1)
					check(t, m.name, object(without), p.name)
				}
				check(t, m.name, object(append(slices.Clone(named), named[i])),
					p.name, "twice")
				upper := slices.Clone(named)
				upper[i] = strings.ToUpper(named[i][:2]) + named[i][2:]
				check(t, m.name, object(upper), upper[i][1:2])
				for _, wrong := range p.wrong {
					values := slices.Clone(good)
					values[i] = wrong
					check(t, m.name, list(values), p.name)
					members := append([]string{}, named...)
					members[i] = fmt.Sprintf("%q:%s", p.name, wrong)
					check(t, m.name, object(members), p.name)
				}
			}
			p.unharmed(t) // all these calls must have harmed nothing
		})
	}
	// These calls are sent as JSON, because the methods of rpc/client make paths absolute.
	t.Run("a relative path", func(t *testing.T) {
		p.ctx = testkit.Bounded(t)
		for method, params := range map[string][]string{
			"tls.SetCaBundle":      {"server.pem"},
			"tls.NewServerContext": {"server.pem", w.cert.KeyFile},
		} {
			raw, err := json.Marshal(params)
			testkit.Must(t, err)
			p.refused(t, call(method, string(raw)), want{kind: client.KindFile,
				op: method, says: []string{"server.pem", "absolute"}})
		}
	})
	t.Run("no such method", func(t *testing.T) {
		p.ctx = testkit.Bounded(t)
		for _, name := range []string{"tls.Nothing", "tls.newClient", "NewClient", "",
			"rpc.nothing"} {
			err := call(name, "[]")
			if e := failure(err); e != nil {
				e.Data.Op = "" // tlsd has sent no op; rpc/client has added it
			}
			p.refused(t, err, want{kind: client.KindParams,
				code: wire.CodeMethodNotFound, says: []string{name, "not found"}})
		}
	})
}

// A function is one of the functions that scripts call. The field call makes such a call, on a
// handle.
type function struct {
	name string
	call func(client.Handle) error
}

// afterHandshake returns functions that a connection allows only after its handshake.
func (p *twoSessions) afterHandshake() []function {
	return []function{
		{"tls.Write", func(h client.Handle) error {
			_, err := p.s.Write(p.ctx, h, []byte("hi"))
			return err
		}},
		{"tls.Write", func(h client.Handle) error {
			_, err := p.s.Write(p.ctx, h, nil)
			return err
		}},
		{"tls.Read", func(h client.Handle) error {
			_, err := p.s.Read(p.ctx, h, 100)
			return err
		}},
		{"tls.Shutdown", func(h client.Handle) error { return p.s.Shutdown(p.ctx, h) }},
		{"tls.PeerCertSubject", func(h client.Handle) error {
			_, err := p.s.PeerCertSubject(p.ctx, h)
			return err
		}},
		{"tls.Version", func(h client.Handle) error {
			_, err := p.s.Version(p.ctx, h)
			return err
		}},
	}
}

// A call fails with kind handle if its number is no handle of the session, or if the handle is of
// the wrong sort: a connection instead of a server context, or the reverse.
func TestBadHandles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		p := newTwoSessions(t, e, w)
		connection := p.open(t)
		server, err := p.s.NewServerContext(p.ctx, w.cert.CertFile, w.cert.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		closed := p.open(t)
		if err := p.s.CloseConn(p.ctx, closed); err != nil {
			t.Fatal(err)
		}
		closedServer, err := p.s.NewServerContext(p.ctx, w.cert.CertFile, w.cert.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.s.CloseServerContext(p.ctx, closedServer); err != nil {
			t.Fatal(err)
		}
		if _, err := p.s.NewClient(p.ctx, "127.0.0.1", testkit.Port(t)); err == nil {
			t.Fatal("NewClient succeeds on a port on which nobody listens")
		}
		never := closedServer + 1 // the failed NewClient has used up this number

		free := testkit.Port(t)
		type named struct {
			name   string
			handle client.Handle
			says   string
		}
		bad := []named{
			{"of a closed connection", closed, "closed"},
			{"of a closed context", closedServer, "closed"},
			{"of a call that failed", never, "failed"},
			{"that was never given out", 100_000, "no such handle"},
			{"the highest", 1<<31 - 1, "no such handle"},
		}
		refused := func(all []function, handles ...named) {
			for _, f := range all {
				for _, h := range handles {
					t.Run(f.name+" "+h.name, func(t *testing.T) {
						p.refused(t, f.call(h.handle), want{
							kind: client.KindHandle, op: f.name,
							handle: int(h.handle),
							says:   []string{h.says}})
					})
				}
			}
		}
		refused(append(p.afterHandshake(),
			function{"tls.Handshake", func(h client.Handle) error {
				return p.s.Handshake(p.ctx, h)
			}},
			function{"tls.Close", func(h client.Handle) error {
				return p.s.CloseConn(p.ctx, h)
			}},
			function{"tls.SetInsecureSkipVerify", func(h client.Handle) error {
				return p.s.SetInsecureSkipVerify(p.ctx, h, true)
			}},
			function{"tls.ReadPlain", func(h client.Handle) error {
				_, err := p.s.ReadPlain(p.ctx, h, 10)
				return err
			}},
			function{"tls.WritePlain", func(h client.Handle) error {
				_, err := p.s.WritePlain(p.ctx, h, []byte("x"))
				return err
			}},
		), append(bad, named{"of the other sort", server, "it is a server context"})...)
		refused([]function{
			{"tls.Accept", func(h client.Handle) error {
				_, err := p.s.Accept(p.ctx, h, "127.0.0.1", free)
				return err
			}},
			{"tls.CloseServerContext", func(h client.Handle) error {
				return p.s.CloseServerContext(p.ctx, h)
			}},
			{"tls.Listen", func(h client.Handle) error {
				_, err := p.s.Listen(p.ctx, h, "127.0.0.1", free)
				return err
			}},
		}, append(bad, named{"of the other sort", connection, "it is a connection"})...)
		refused([]function{ // for handles of both sorts
			{"tls.SetTimeout", func(h client.Handle) error {
				return p.s.SetTimeout(p.ctx, h, time.Millisecond)
			}},
			{"tls.SetOption", func(h client.Handle) error {
				return p.s.SetOption(p.ctx, h, "watch", "1")
			}},
			{"tls.SetCertificate", func(h client.Handle) error {
				cert := w.cert
				return p.s.SetCertificate(p.ctx, h, "", cert.CertFile, cert.KeyFile)
			}},
			{"tls.Info", func(h client.Handle) error {
				_, err := p.s.HandleInfo(p.ctx, h, "")
				return err
			}},
		}, bad...)
		if testd.Listening(t, free) {
			t.Error("tlsd listens on the port of a refused Accept or Listen")
		}
		// The two good handles still work, although calls for the other sort have failed on
		// them.
		if err := p.s.Handshake(p.ctx, connection); err != nil {
			t.Errorf("tls.Handshake on the good connection fails with %v", err)
		}
		if err := p.s.CloseServerContext(p.ctx, server); err != nil {
			t.Errorf("tls.CloseServerContext of the good context fails with %v", err)
		}
	})
}

// A call that does not fit the state of its connection fails with kind state.
func TestBadStates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		p := newTwoSessions(t, e, w)
		ctx := p.ctx
		refused := func(t *testing.T, h client.Handle, op string, err error,
			says ...string) {
			t.Helper()
			p.refused(t, err, want{kind: client.KindState, op: op, handle: int(h),
				says: says})
		}
		skip := func(t *testing.T, h client.Handle, says string) {
			t.Helper()
			for _, on := range []bool{true, false} {
				refused(t, h, "tls.SetInsecureSkipVerify",
					p.s.SetInsecureSkipVerify(ctx, h, on), says)
			}
		}
		t.Run("before the handshake", func(t *testing.T) {
			h := p.open(t)
			for _, f := range p.afterHandshake() {
				refused(t, h, f.name, f.call(h), "handshake")
			}
			if err := p.s.Handshake(ctx, h); err != nil {
				t.Errorf("after calls that came too early, the handshake fails "+
					"with %v", err)
			}
		})
		t.Run("after the handshake", func(t *testing.T) {
			h := p.open(t)
			for range 3 { // a second Handshake changes nothing
				if err := p.s.Handshake(ctx, h); err != nil {
					t.Fatal(err)
				}
			}
			skip(t, h, "handshake has been done")
			if v, err := p.s.Version(ctx, h); v != "TLSv1.3" || err != nil {
				t.Errorf("tls.Version: %q, %v; want TLSv1.3", v, err)
			}
		})
		t.Run("after a handshake that failed", func(t *testing.T) {
			stranger := serve(t, issue(t, w.other, localhost))
			h, err := p.s.NewClient(ctx, "localhost", stranger)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.s.Handshake(ctx, h); !isKind(err, client.KindVerify) {
				t.Fatalf("the handshake with a server of another CA returns %v; "+
					"want kind verify", err)
			}
			for _, f := range p.afterHandshake() {
				refused(t, h, f.name, f.call(h), "handshake failed", "tls.Close")
			}
			refused(t, h, "tls.Handshake", p.s.Handshake(ctx, h), "handshake failed")
			skip(t, h, "handshake failed")
			if err := p.s.CloseConn(ctx, h); err != nil {
				t.Errorf("after a failed handshake, tls.Close fails with %v", err)
			}
		})
		t.Run("on an accepted connection", func(t *testing.T) {
			c, s := connect(t, w, goEndpoint{}, e, dialOptions{}, listenOptions{})
			a := s.(ourStream)
			if err := a.S.Handshake(ctx, a.H); err != nil {
				t.Errorf("tls.Handshake after tls.Accept: %v; want success", err)
			}
			err := a.S.SetInsecureSkipVerify(ctx, a.H, true)
			if !isKind(err, client.KindState) || !mentions(failure(err), "accepted") {
				t.Errorf("tls.SetInsecureSkipVerify on an accepted connection: "+
					"%v; want kind state", err)
			}
			greet(t, goEndpoint{}, e, c, s)
		})
	})
}

// A Write may be empty, and may have 16 MiB. A Read may ask for 1 byte, and for 16 MiB.
func TestTheEdgesOfWhatIsAllowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		c, s := connect(t, w, e, goEndpoint{}, dialOptions{}, listenOptions{})
		a := c.(ourStream)
		for range 2 {
			if n, err := a.S.Write(a.Ctx, a.H, nil); n != 0 || err != nil {
				t.Errorf("an empty Write: %d, %v; want 0", n, err)
			}
		}
		send(t, goEndpoint{}, s, marker)
		if b, err := a.S.Read(a.Ctx, a.H, 1); string(b) != marker[:1] || err != nil {
			t.Errorf("Read of 1 byte: %q, %v; want the first byte", b, err)
		}
		if b, err := a.S.Read(a.Ctx, a.H, 1<<24); string(b) != marker[1:] || err != nil {
			t.Errorf("Read of 16 MiB: %q, %v; want the rest of what was sent", b, err)
		}
		big := []byte(strings.Repeat(marker+" ", 1<<24/len(marker+" ")+1)[:1<<24])
		written := make(chan error, 1)
		go func() {
			n, err := a.S.Write(a.Ctx, a.H, big)
			if err == nil && n != len(big) {
				err = fmt.Errorf("%d bytes written", n)
			}
			written <- err
		}()
		got, err := read(s, len(big))
		if err != nil || got != string(big) {
			t.Errorf("of a Write of 16 MiB the peer reads %d bytes, %v; want all, "+
				"unchanged", len(got), err)
		}
		if err := <-written; err != nil {
			t.Errorf("a Write of 16 MiB fails with %v", err)
		}
	})
}
