package plugin

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each function is forwarded as its method. A text comes back whole, however long it is. An error
// comes back whole if it has at most 4095 bytes.

func TestEachFunctionIsForwardedAsItsMethod(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	for _, c := range []struct {
		op     string
		args   []any
		method string
		params string
		result string
		n      int64
		text   string
	}{
		{"NewClient", []any{"::1", 65535}, "tls.NewClient", `["::1",65535]`, "2", 2, ""},
		{"Handshake", []any{1}, "tls.Handshake", `[1,1]`, "0", 0, ""},
		{"Shutdown", []any{1}, "tls.Shutdown", `[1]`, "0", 0, ""},
		{"SetInsecureSkipVerify", []any{1, 1}, "tls.SetInsecureSkipVerify", `[1,1]`,
			"0", 0, ""},
		{"SetTimeout", []any{1, 2147483647}, "tls.SetTimeout", `[1,2147483647]`,
			"0", 0, ""},
		{"NewServerContext", []any{"/a b/c.crt", "/k.key"}, "tls.NewServerContext",
			`["/a b/c.crt","/k.key"]`, "3", 3, ""},
		{"Accept", []any{3, "0.0.0.0", 8443}, "tls.Accept", `[3,"0.0.0.0",8443,1]`,
			"2147483647", 2147483647, ""},
		{"CloseServerContext", []any{3}, "tls.CloseServerContext", `[3]`, "0", 0, ""},
		{"SetCaBundle", []any{"/ca.pem"}, "tls.SetCaBundle", `["/ca.pem"]`, "0", 0, ""},
		{"Close", []any{1}, "tls.Close", `[1]`, "0", 0, ""},
		// Parameters that tlsd can check are left to tlsd.
		{"NewClient", []any{"", -1}, "tls.NewClient", `["",-1]`, "4", 4, ""},
		{"SetInsecureSkipVerify", []any{-9, 7}, "tls.SetInsecureSkipVerify", `[-9,7]`,
			"0", 0, ""},
		{"Close", []any{int64(-1 << 63)}, "tls.Close", `[-9223372036854775808]`,
			"0", 0, ""},
	} {
		call := h.start(c.op, c.args...)
		p.result(p.expect(c.method, c.params), c.result)
		call.gives(c.n, c.text)
	}
}

// A C program gets a text with two calls of the same function, a getter: the first call returns the
// length, and the second call fills the program's buffer.
func TestTwoCallsOfAGetterGiveTheWholeText(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	long := strings.Repeat("/OU=ü", 50_000) // longer than the plugin's first input buffer
	for _, c := range []struct{ json, text string }{
		{`""`, ""},
		{`"/CN=example.com"`, "/CN=example.com"},
		{`"/CN=a\"b\\c\/d\b\f\n"`, "/CN=a\"b\\c/d\b\f\n"},
		{`"\u00e9\u20AC\ud83d\ude00 \ud83d x \ude00 \u0000"`, "é€😀 \ufffd x \ufffd \ufffd"},
		{`"` + long + `"`, long},
	} {
		call := h.start("PeerCertSubject", 1)
		for range 2 { // for the length, and for the text
			p.result(p.expect("tls.PeerCertSubject", `[1]`), c.json)
		}
		if r := call.wait(); r.N != int64(len(c.text)) || r.Text != c.text {
			t.Errorf("the result %.80s becomes %d, %.80q; want %d, %.80q", c.json, r.N,
				r.Text, len(c.text), c.text)
		}
	}
	for _, op := range []struct{ op, method, params string }{
		{"Version", "tls.Version", "[]"}, {"Backend", "tls.Backend", "[]"},
		{"Version", "tls.Version", "[1]"},
	} {
		handle := 0
		if op.params != "[]" {
			handle = 1
		}
		call := h.start(op.op, handle)
		for range 2 {
			p.result(p.expect(op.method, op.params), `"x"`)
		}
		call.gives(1, "x")
	}
}

func TestStringsAreEscapedForJSON(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	call := h.start("NewClient", "a\"b\\c\x01\x1f\x7fäöü😀", 1)
	p.result(p.expect("tls.NewClient", `["a\u0022b\u005cc\u0001\u001f`+"\x7f"+`äöü😀",1]`), "2")
	call.gives(2, "")
}

func TestAnErrorIsRaisedAndKeptVerbatim(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	h.send("LastError").gives(0, "")
	for _, message := range []string{
		"tls.Read: handle 1: connection reset by peer",
		"",
		`quotes " and \ and 100% %s %n é`,
	} {
		call := h.start("Handshake", 1)
		p.fail(p.expect("tls.Handshake", "[1,1]"), message)
		if r := call.wait(); r.N != -1 || r.Text != message {
			t.Errorf("a failed Handshake gives %d, %q; want -1, %q", r.N,
				r.Text, message)
		}
		h.send("LastError").gives(int64(len(message)), message)
	}

	// LastError gives the error also after a call that succeeds. If the buffer is too small,
	// LastError cuts the text as snprintf does. (Cut fills a buffer with X, and then passes the
	// buffer and this size to tls_LastError.)
	handshake := h.start("Handshake", 1)
	p.fail(p.expect("tls.Handshake", "[1,1]"), "0123456789")
	handshake.fails("0123456789")
	h.send("SetStrictWrites", 0).gives(0, "")
	for cap, text := range map[int]string{0: "XXXXXXX", 1: "", 2: "0", 7: "012345"} {
		h.send("Cut", cap).gives(10, text)
	}
}

func TestALongErrorIsCutBetweenCharacters(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	for shift := range 4 {
		handshake := h.start("Handshake", 1)
		text := strings.Repeat("x", shift) + strings.Repeat("😀", 3000)
		p.fail(p.expect("tls.Handshake", "[1,1]"), text)
		r := handshake.wait()
		want := strings.Repeat("x", shift) + strings.Repeat("😀", (4095-shift)/4)
		if r.N != -1 || r.Text != want {
			t.Errorf("shift %d: an error text of %d bytes becomes one of %d; want %d",
				shift, len(text), len(r.Text), len(want))
		}
	}
}

// The plugin itself refuses parameters that JSON cannot carry, sizes that are out of range, and
// handles that tlsd has not given to this process. For such a call it does not connect to tlsd.
func TestThePluginRefusesWhatCannotBeSent(t *testing.T) {
	t.Parallel()
	d := newStandIn(t) // it answers nothing: a call that is sent does not return
	h := startHost(t, d.env())
	for _, c := range []struct {
		op    string
		args  []any
		error string
	}{
		{"NewClient", []any{null, 443}, "tls.NewClient: host: must not be NULL"},
		{"NewClient", []any{"a\xffb", 443}, "tls.NewClient: host: must be UTF-8"},
		{"NewClient", []any{"\xed\xa0\x80", 443}, "tls.NewClient: host: must be UTF-8"},
		{"NewClient", []any{"\xc0\xaf", 443}, "tls.NewClient: host: must be UTF-8"},
		{"NewClient", []any{"\xf4\x90\x80\x80", 443}, "tls.NewClient: host: must be UTF-8"},
		{"NewClient", []any{"\xe2\x82", 443}, "tls.NewClient: host: must be UTF-8"},
		{"NewClient", []any{strings.Repeat("h", 4096), 443}, "tls.NewClient: host: must " +
			"not be longer than 4095 bytes"},
		{"Accept", []any{1, null, 443}, "tls.Accept: host: must not be NULL"},
		{"NewServerContext", []any{null, "/k"}, "tls.NewServerContext: certFile: must " +
			"not be NULL"},
		{"NewServerContext", []any{"/c", null},
			"tls.NewServerContext: keyFile: must not be NULL"},
		{"NewServerContext", []any{"/c", ""}, "tls.NewServerContext: keyFile: must not " +
			"be empty"},
		{"NewServerContext", []any{"/c", "\x80"}, "tls.NewServerContext: keyFile: must " +
			"be UTF-8"},
		{"SetCaBundle", []any{null}, "tls.SetCaBundle: path: must not be NULL"},
		{"Read", []any{1, 0}, "tls.Read: maxBytes 0: must be between 1 and 16777216"},
		{"Read", []any{1, 16777217}, "tls.Read: maxBytes 16777217: must be between 1 and " +
			"16777216"},
		{"Read", []any{1, uint64(1<<64 - 1)}, "tls.Read: maxBytes 18446744073709551615: " +
			"must be between 1 and 16777216"},
		{"Read", []any{1, 5, "into NULL"}, "tls.Read: buf: must not be NULL"},
		{"WriteRaw", []any{1, null, 1}, "tls.Write: data: must not be NULL"},
		{"WriteRaw", []any{1, "x", 16777217}, "tls.Write: data of 16777217 bytes: must " +
			"not be more than 16777216"},
		// This process has no session yet, so tlsd has not given it any handle.
		{"Read", []any{1, 10}, "tls.Read: handle 1: no such handle"},
		{"WriteRaw", []any{0, null, 0}, "tls.Write: handle 0: no such handle"},
		{"Close", []any{-1}, "tls.Close: handle -1: no such handle"},
		{"Handshake", []any{int64(1) << 40}, "tls.Handshake: handle 1099511627776: no " +
			"such handle"},
		{"Version", []any{3}, "tls.Version: handle 3: no such handle"},
		{"Shutdown", []any{3}, "tls.Shutdown: handle 3: no such handle"},
		{"Descriptor", []any{3}, "tls.Descriptor: handle 3: no such handle"},
	} {
		if r := h.call(c.op, c.args...); r.N != -1 || r.Text != c.error {
			t.Errorf("%s%.60v gives %d, %q; want %q", c.op, c.args, r.N,
				r.Text, c.error)
		}
	}
}

func TestPathsAreMadeAbsoluteFromTheHostsDirectory(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ cwd, path, want string }{
		{dir, "ca.pem", dir + "/ca.pem"},
		{dir, "../x/ca.pem", dir + "/../x/ca.pem"},
		{"/", "ca.pem", "/ca.pem"},
		{dir, "/ca.pem", "/ca.pem"},
	} {
		h.send("chdir", c.cwd).gives(0, "")
		ca := h.start("SetCaBundle", c.path)
		p.result(p.expect("tls.SetCaBundle", fmt.Sprintf("[%q]", c.want)), "0")
		ca.gives(0, "")
		ctx := h.start("NewServerContext", c.path, "/key")
		p.fail(p.expect("tls.NewServerContext", fmt.Sprintf("[%q,%q]", c.want, "/key")),
			"no")
		ctx.fails("no")
	}

	gone := filepath.Join(dir, "gone")
	if err := os.Mkdir(gone, 0o700); err != nil {
		t.Fatal(err)
	}
	h.send("chdir", gone).gives(0, "")
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	h.send("SetCaBundle", "ca.pem").fails("tls.SetCaBundle: path ca.pem: the working " +
		"directory: No such file or directory")

	odd := filepath.Join(dir, "\xff")
	if err := os.Mkdir(odd, 0o700); err != nil {
		t.Fatal(err)
	}
	h.send("chdir", odd).gives(0, "")
	h.send("SetCaBundle", "ca.pem").fails("tls.SetCaBundle: path ca.pem: the path of the " +
		"working directory must be UTF-8")
}

func TestTheSessionIsOpenedOnceAndOnlyWhenNeeded(t *testing.T) {
	t.Parallel()
	d := newStandIn(t)
	h := startHost(t, d.env())
	h.send("LastError").gives(0, "")
	h.send("Read", 1, 1).fails("tls.Read: handle 1: no such handle")

	backend := h.start("Backend")
	p := d.accept()
	id, first := p.helloOnly()
	if first != 1 {
		t.Errorf("tls.Hello has the firstHandle %d; want 1", first)
	}
	p.result(id, `{"capabilities":["x","data"],"version":1}`)
	for range 2 {
		p.result(p.expect("tls.Backend", "[]"), `"openssl"`)
	}
	backend.gives(7, "openssl")
	p.client(h, 1) // on the same session
}
