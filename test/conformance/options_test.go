package conformance

import (
	"encoding/json"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"tlsd/internal/ours"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
	"tlsd/session"
)

// Each option of tls.SetOption is tried with good and wrong values, on each kind of handle, before
// and after the handshake. tls.SetCertificate, tls.Listen, tls.ReadPlain and tls.WritePlain are
// tried on wrong handles and in wrong states.

// An option belongs to clients, to accepted connections, to contexts, or to several of these kinds
// of handles. In a value, CA stands for a good file of CA certificates, and RUBBISH for a file
// without certificates.
type option struct {
	name             string
	client, accepted bool
	late             bool // a connection takes it after the handshake, too
	context          bool
	preset           string   // value in a new context, as tls.Info tells it
	good             []string // set in this order; then tls.Info of a context tells the last
	wrong            []string
	badFiles         []string // values that fail with kind file
	says             string   // text of the error for a wrong value
	// another option that must be set before, and what the state error says
	dependsOn, dependsText string
}

var optionTable = []option{
	{name: "alpn", client: true, context: true,
		good: []string{"", "h2", strings.Repeat("x", 255), "h2,http/1.1"},
		wrong: []string{",", "h2,", ",h2", "h2, http/1.1",
			strings.Repeat("x", 256)}, says: "names with commas between them"},
	{name: "server-name", client: true,
		good: []string{"example.com", "127.0.0.1", "[::1]", "localhost"},
		wrong: []string{"", "a b", "https://example.com", "127.1", "[localhost]",
			"ü.test"}, says: "is not a host"},
	{name: "ca", client: true, good: []string{"", "CA"},
		badFiles: []string{"/nonexistent", "RUBBISH"}},
	{name: "pins", client: true, good: []string{"sha256:" + strings.Repeat("0", 64),
		"sha256:" + strings.Repeat("a", 64) + ",sha256:" + strings.Repeat("B", 64), ""},
		wrong: []string{"sha256:", "sha256:00", strings.Repeat("0", 64),
			"sha1:" + strings.Repeat("0", 64), "sha256:" + strings.Repeat("x",
				64), "sha256:" + strings.Repeat("0", 64) + ","},
		says: "64 hexadecimal digits"},
	{name: "min-version", client: true, context: true, preset: "1.2",
		good: []string{"1.2", "1.3"}, wrong: []string{"", "1.1", "1.4",
			"TLSv1.3"}, says: "want 1.2 or 1.3"},
	{name: "eof", client: true, accepted: true, good: []string{"lax", "strict"},
		wrong: []string{"", "LAX", "1"}, says: "want strict or lax"},
	{name: "client-ca", context: true, good: []string{"CA"},
		badFiles: []string{"/nonexistent", "RUBBISH"}},
	{name: "client-cert", context: true, preset: "none",
		good: []string{"none", "request", "require"}, wrong: []string{"", "maybe",
			"1"}, says: "want none, request or require",
		dependsOn: "client-ca", dependsText: "set the option client-ca first"},
	{name: "session-resumption", client: true, context: true, preset: "on",
		good: []string{"on", "off"}, wrong: []string{"", "1"}, says: "want on or off"},
	{name: "failed-handshakes", context: true, preset: "raise", good: []string{"raise", "skip"},
		wrong: []string{"", "log"}, says: "want raise or skip"},
	{name: "handshake", context: true, preset: "accept", good: []string{"accept", "later"},
		wrong: []string{"", "now"}, says: "want accept or later"},
	{name: "reload", context: true, preset: "off", good: []string{"off", "auto"},
		wrong: []string{"", "on"}, says: "want off or auto"},
	{name: "watch", client: true, accepted: true, late: true, context: true, preset: "0",
		good: []string{"0", "1"}, wrong: []string{"", "2", "on"}, says: "want 0 or 1"},
}

// A desk is a session of ours with a context that listens. Its methods make the other handles.
type desk struct {
	t       *testing.T
	s       ours.Session
	w       *world
	rubbish string
	context client.Handle
	port    int
}

func newDesk(t *testing.T, e us, w *world) *desk {
	t.Helper()
	d := &desk{t: t, s: e.open(t, w.ca.File), w: w,
		rubbish: filepath.Join(t.TempDir(), "rubbish.pem")}
	testkit.Must(t, os.WriteFile(d.rubbish, []byte("no certificate\n"), 0o600))
	d.context = d.newContext()
	port, err := d.s.Listen(testkit.Bounded(t), d.context, "127.0.0.1", 0)
	testkit.Must(t, err)
	d.port = port
	return d
}

func (d *desk) newContext() client.Handle {
	d.t.Helper()
	h, err := d.s.NewServerContext(testkit.Bounded(d.t), d.w.cert.CertFile, d.w.cert.KeyFile)
	testkit.Must(d.t, err)
	return h
}

// client connects to the desk's own context, without a handshake.
func (d *desk) client() client.Handle {
	d.t.Helper()
	h, err := d.s.NewClient(testkit.Bounded(d.t), "localhost", d.port)
	testkit.Must(d.t, err)
	return h
}

// pair makes a connection, and returns both ends. If shaken is set, the two ends have done their
// handshake.
func (d *desk) pair(shaken bool) (cl, accepted client.Handle) {
	d.t.Helper()
	way := map[bool]string{true: "accept", false: "later"}[shaken]
	testkit.Must(d.t, d.s.SetOption(testkit.Bounded(d.t), d.context, "handshake", way))
	return d.meet(shaken)
}

// meet is like pair, but does not change the context. The context's option handshake must have the
// right value already.
func (d *desk) meet(shaken bool) (cl, accepted client.Handle) {
	d.t.Helper()
	ctx := testkit.Bounded(d.t)
	cl = d.client()
	come := make(chan client.Handle, 1)
	go func() {
		h, err := d.s.Accept(ctx, d.context, "", 0)
		if err != nil {
			d.t.Errorf("Accept: %v", err)
		}
		come <- h
	}()
	if shaken {
		testkit.Must(d.t, d.s.Handshake(ctx, cl))
	}
	return cl, <-come
}

func (d *desk) set(h client.Handle, name, value string) error {
	value = strings.NewReplacer("CA", d.w.ca.File, "RUBBISH", d.rubbish).Replace(value)
	return d.s.SetOption(testkit.Bounded(d.t), h, name, value)
}

// d.fails checks that err is an error of the given kind, and that its text has all the texts in
// says. what names the call.
func (d *desk) fails(what string, err error, kind client.Kind, says ...string) {
	d.t.Helper()
	if e := failure(err); e == nil || !isKind(err, kind) || !mentions(e, says...) {
		d.t.Errorf("%s: the error is %v; want kind %s, and the texts "+
			"%q", what, err, kind, says)
	}
}

// known returns the names of the selected options, as an error lists them.
func known(selected func(option) bool) string {
	var names []string
	for _, o := range optionTable {
		if selected(o) {
			names = append(names, o.name)
		}
	}
	return strings.Join(names, ", ")
}

// Each kind of handle takes good values of its options. It refuses wrong values, other options and
// unknown options, and the error lists what it takes. After the handshake a connection refuses most
// options.
func TestEachOptionOnEachKindOfHandle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		d := newDesk(t, e, w)
		unshakenClient, unshakenServer := d.pair(false)
		shakenClient, shakenServer := d.pair(true)
		ofConnections := known(func(o option) bool { return o.client || o.accepted })
		ofContexts := known(func(o option) bool { return o.context })
		// An error lists all options. d.fails only looks for a text in the error, so it
		// would not notice a further option at the end of the list. Therefore the end of
		// the list is compared below.
		d.fails("an unknown option of a connection", d.set(unshakenClient, "colour", "red"),
			client.KindParams, `"colour"`, "there are: "+ofConnections)
		d.fails("an unknown option of a context", d.set(d.context, "colour", "red"),
			client.KindParams, `"colour"`, "there are: "+ofContexts)
		for _, c := range []struct {
			h    client.Handle
			list string
		}{{unshakenClient, ofConnections}, {d.context, ofContexts}} {
			if e := failure(d.set(c.h, "colour", "red")); e == nil ||
				!strings.HasSuffix(e.Message, "there are: "+c.list) {
				t.Errorf("optionTable lacks an option that tlsd has: %v", e)
			}
		}
		for _, o := range optionTable {
			for _, h := range []struct {
				name   string
				handle client.Handle
				has    bool
			}{
				{"a client", unshakenClient, o.client},
				{"an accepted connection", unshakenServer, o.accepted},
				{"a context", d.context, o.context},
			} {
				what := o.name + " of " + h.name
				if h.has {
					d.each(what, h.handle, o)
					continue
				}
				kind, says := client.KindParams, o.name+`" is not an option`
				if h.name == "an accepted connection" && o.client {
					kind, says = client.KindState, "is an accepted connection"
					if o.context {
						says += "; set it on the context"
					}
				}
				d.fails(what, d.set(h.handle, o.name, o.good[0]), kind, says)
			}
			if !o.client && !o.accepted {
				continue
			}
			for _, h := range []client.Handle{shakenClient, shakenServer} {
				if o.late {
					d.each(o.name+" behind the handshake", h, o)
					continue
				}
				d.fails(o.name+" behind the handshake", d.set(h, o.name, o.good[0]),
					client.KindState, "the handshake has been done already")
			}
		}
		for _, c := range []client.Handle{99, 1<<31 - 1} {
			d.fails("no handle", d.set(c, "alpn", "h2"), client.KindHandle,
				"no such handle")
		}
		// The refused values have broken nothing: with good values the handshake works.
		for name, value := range map[string]string{"server-name": "localhost", "ca": "CA",
			"pins": "", "alpn": "", "min-version": "1.2"} {
			testkit.Must(t, d.set(unshakenClient, name, value))
		}
		ended := make(chan error, 1)
		go func() { ended <- d.s.Handshake(testkit.Bounded(t), unshakenServer) }()
		testkit.Must(t, d.s.Handshake(testkit.Bounded(t), unshakenClient))
		testkit.Must(t, <-ended)
	})
}

// d.each sets each value of an option, and checks the result.
func (d *desk) each(what string, h client.Handle, o option) {
	d.t.Helper()
	for _, v := range o.wrong {
		d.fails(what+" = "+strconv.Quote(v), d.set(h, o.name, v), client.KindParams,
			o.name+": ", o.says)
	}
	for _, v := range o.badFiles {
		d.fails(what+" = "+v, d.set(h, o.name, v), client.KindFile, o.name+": ")
	}
	last := ""
	for _, v := range o.good {
		if err := d.set(h, o.name, v); err != nil {
			d.t.Errorf("setting %s to %q must succeed: %v", what, v, err)
		}
		last = v
	}
	if o.context && h == d.context {
		got, err := d.s.HandleInfo(testkit.Bounded(d.t), h, o.name)
		testkit.Must(d.t, err)
		if want := strings.ReplaceAll(last, "CA", d.w.ca.File); got != want {
			d.t.Errorf("%s: tls.Info tells %q, want %q", what, got, want)
		}
		// The context gets a value with which the next tests work.
		testkit.Must(d.t, d.set(h, o.name,
			map[bool]string{true: o.preset, false: o.good[0]}[o.preset != ""]))
	}
}

// tls.Info tells the address of a context and the values of all its options. An option that depends
// on another option can be set only after the other option.
func TestFactsOfContexts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		d := newDesk(t, e, w)
		text, err := d.s.HandleInfo(testkit.Bounded(t), d.context, "")
		testkit.Must(t, err)
		var all map[string]string
		testkit.Must(t, json.Unmarshal([]byte(text), &all))
		want := map[string]string{"address": testkit.Addr(d.port)}
		for _, o := range optionTable {
			if o.context {
				want[o.name] = o.preset
			}
		}
		if !maps.Equal(all, want) {
			t.Errorf("a new context has the facts %v, want %v", all, want)
		}
		if empty, err := d.s.HandleInfo(testkit.Bounded(t), d.newContext(),
			"address"); empty != "" || err != nil {
			t.Errorf("a context that listens nowhere: the fact address is %q, error "+
				"%v; want an empty text", empty,
				err)
		}
		for _, o := range optionTable {
			if o.dependsOn != "" {
				err := d.set(d.newContext(), o.name, o.good[len(o.good)-1])
				d.fails(o.name, err, client.KindState, o.dependsText)
			}
		}
	})
}

// tls.Info fails for a fact that a handle does not have: most facts before the handshake, those of
// another kind of handle, and unknown ones.
func TestFactsThatCannotBeAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		d := newDesk(t, e, w)
		ask := func(h client.Handle, name string) (string,
			error) {
			return d.s.HandleInfo(testkit.Bounded(t), h, name)
		}
		cl, sv := d.pair(false)
		var names []string
		for _, f := range facts {
			names = append(names, f.name)
			for _, h := range []client.Handle{cl, sv} {
				got, err := ask(h, f.name)
				if strings.HasSuffix(f.name, "-address") {
					if _, _, split := net.SplitHostPort(got); err != nil ||
						split != nil {
						t.Errorf("before the handshake %s is %q, error "+
							"%v; want an address with a port",
							f.name, got, err)
					}
					continue
				}
				d.fails(f.name+" before the handshake", err, client.KindState,
					"the handshake has not been done")
			}
			if _, err := ask(d.context, f.name); f.name != "alpn" {
				d.fails(f.name+" of a context", err, client.KindParams,
					strconv.Quote(f.name))
			}
		}
		cl, sv = d.pair(true)
		for _, h := range []client.Handle{cl, sv} {
			_, err := ask(h, "colour")
			d.fails("an unknown fact", err, client.KindParams, `"colour"`,
				"there are: "+strings.Join(names, ", "))
			_, err = ask(h, "client-cert")
			d.fails("a context's fact of a connection", err, client.KindParams,
				`"client-cert"`)
		}
		testkit.Must(t, d.s.CloseConn(testkit.Bounded(t), cl))
		_, err := ask(cl, "alpn")
		d.fails("a fact of a closed connection", err, client.KindHandle, "closed")
		_, err = ask(99, "alpn")
		d.fails("a fact of no handle", err, client.KindHandle, "no such handle")
	})
}

// A call fails if it does not fit the kind of its handle or the state of its connection, and the
// error says why.
func TestCallsOfTheWrongStateOrKind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := w.cert
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		d := newDesk(t, e, w)
		ctx := testkit.Bounded(t)
		cl, sv := d.pair(false)
		shakenClient, shakenServer := d.pair(true)
		other := issue(t, w.ca, localhost)
		pair := func(h client.Handle, name, cert, key string) error {
			return d.s.SetCertificate(ctx, h, name, cert, key)
		}
		certificate := func(h client.Handle, name string) error {
			return pair(h, name, good.CertFile, good.KeyFile)
		}
		readPlain := func(h client.Handle) error {
			_, err := d.s.ReadPlain(ctx, h, 10)
			return err
		}
		writePlain := func(h client.Handle) error {
			_, err := d.s.WritePlain(ctx, h, []byte("x"))
			return err
		}
		listen := func(h client.Handle, host string, port int) error {
			_, err := d.s.Listen(ctx, h, host, port)
			return err
		}
		read := func(h client.Handle) error { _, err := d.s.Read(ctx, h, 10); return err }
		write := func(h client.Handle) error {
			_, err := d.s.Write(ctx, h, []byte("x"))
			return err
		}
		for _, c := range []struct {
			what string
			err  error
			kind client.Kind
			says string
		}{
			{"a client's certificate behind the handshake",
				certificate(shakenClient, ""),
				client.KindState, "the handshake has been done already"},
			{"the certificate of an accepted connection", certificate(sv, ""),
				client.KindState, "accepted"},
			{"a client's certificate with a name", certificate(cl, "a.test"),
				client.KindParams, "server"},
			{"no certificate", pair(cl, "", "/nonexistent", good.KeyFile),
				client.KindFile, "/nonexistent"},
			{"another key", pair(cl, "", good.CertFile, other.KeyFile),
				client.KindFile, "does not match"},
			{"another key of a context",
				pair(d.context, "", good.CertFile, other.KeyFile),
				client.KindFile, "does not match"},
			{"an address as a name", certificate(d.context, "127.0.0.1"),
				client.KindParams, "127.0.0.1"},
			{"a wildcard in the middle", certificate(d.context, "a.*.test"),
				client.KindParams, "a.*.test"},
			{"a certificate of no handle", certificate(99, ""),
				client.KindHandle, "no such handle"},
			{"plain reading behind the handshake", readPlain(shakenClient),
				client.KindState, "the handshake has been done already"},
			{"plain writing behind the handshake", writePlain(shakenServer),
				client.KindState, "the handshake has been done already"},
			{"plain reading of a context", readPlain(d.context), client.KindHandle,
				"it is a server context"},
			{"plain writing of a context", writePlain(d.context), client.KindHandle,
				"it is a server context"},
			{"reading before the handshake", read(cl), client.KindState,
				"the handshake has not been done"},
			{"writing before the handshake", write(sv), client.KindState,
				"the handshake has not been done"},
			{"listening on a connection", listen(cl, "127.0.0.1", 0), client.KindHandle,
				"it is a connection"},
			{"listening where somebody does",
				listen(d.newContext(), "127.0.0.1",
					d.port), client.KindConnect, "address already in use"},
			{"listening on a name of another machine",
				listen(d.context, "192.0.2.1", 0), client.KindConnect, "192.0.2.1"},
			{"listening on a URL", listen(d.context, "https://localhost", 0),
				client.KindParams, "it is a URL"},
		} {
			d.fails(c.what, c.err, c.kind, c.says)
		}
		// Unread plain text must not be taken for data that TLS has protected. So Handshake
		// fails until the plain text is read.
		_, err := d.s.WritePlain(ctx, sv, []byte("220 go ahead\r\ninjected\r\n"))
		testkit.Must(t, err)
		for got := ""; got != "220 go ahead\r\n"; {
			data, err := d.s.ReadPlain(ctx, cl, 1)
			if err == nil && len(data) == 0 {
				err = io.ErrUnexpectedEOF
			}
			testkit.Must(t, err)
			got += string(data)
		}
		d.fails("a handshake before unread plain text", d.s.Handshake(ctx, cl),
			client.KindState, "plain text")
	})
}
