package plugin

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
)

// SetOption, Info, SetCertificate, Listen, ReadPlain and WritePlain forward their parameters. Each
// error has a kind.

func TestFunctionsSendTheirParametersAndGiveTheResult(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	dir := nowhere(t)
	h.send("chdir", dir).gives(0, "")
	for _, c := range []struct {
		op             string
		args           []any
		method, params string
		answer         string
		n              int64
		text           string
	}{
		{"SetOption", []any{1, "alpn", "h2,http/1.1"}, "tls.SetOption",
			`[1,"alpn","h2,http/1.1"]`, "0", 0, ""},
		{"SetOption", []any{1, "ca", "ca.pem"}, "tls.SetOption",
			fmt.Sprintf(`[1,"ca",%q]`, dir+"/ca.pem"), "0", 0, ""},
		{"SetOption", []any{1, "ca", "/ca.pem"}, "tls.SetOption", `[1,"ca","/ca.pem"]`,
			"0", 0, ""},
		{"SetOption", []any{1, "ca", ""}, "tls.SetOption", `[1,"ca",""]`, "0", 0, ""},
		{"SetOption", []any{1, "client-ca", "x/../ca.pem"}, "tls.SetOption",
			fmt.Sprintf(`[1,"client-ca",%q]`, dir+"/x/../ca.pem"), "0", 0, ""},
		{"SetOption", []any{1, "no-path", "a"}, "tls.SetOption", `[1,"no-path","a"]`,
			"0", 0, ""},
		{"SetCertificate", []any{1, "*.example.com", "c.pem", "/k.pem"},
			"tls.SetCertificate", fmt.Sprintf(`[1,"*.example.com",%q,"/k.pem"]`,
				dir+"/c.pem"), "0", 0, ""},
		{"Listen", []any{1, "127.0.0.1", 0}, "tls.Listen", `[1,"127.0.0.1",0]`,
			"4433", 4433, ""},
		{"Info", []any{1, "alpn"}, "tls.Info", `[1,"alpn"]`, `"h2"`, 2, "h2"},
		{"Info", []any{1, ""}, "tls.Info", `[1,""]`, `"{\"alpn\":\"\"}"`, 11,
			`{"alpn":""}`},
		{"WritePlain", []any{1, []byte("EHLO\x00\xff")}, "tls.WritePlain", `[1,"RUhMTwD/"]`,
			"6", 6, ""},
		{"WritePlain", []any{1, []byte{}}, "tls.WritePlain", `[1,""]`, "0", 0, ""},
		{"ReadPlain", []any{1, 100}, "tls.ReadPlain", `[1,100]`, `"MjIwIAA="`, 5,
			"220 \x00"},
		// an answer carries at most 262144 bytes, so the plugin does not ask for more
		{"ReadPlain", []any{1, 1 << 24}, "tls.ReadPlain", `[1,262144]`, `""`, 0, ""},
	} {
		call := h.start(c.op, c.args...)
		p.result(p.expect(c.method, c.params), c.answer)
		call.gives(c.n, c.text)
	}
	read := h.start("ReadPlain", 1, 262144)
	all := strings.Repeat("x", 262144)
	p.result(p.expect("tls.ReadPlain", "[1,262144]"),
		strconv.Quote(base64.StdEncoding.EncodeToString([]byte(all))))
	read.reads(all)
	for _, bad := range []string{`"AAAA"`, `"A"`, `"AA=A"`} {
		read := h.start("ReadPlain", 1, 2)
		p.result(p.expect("tls.ReadPlain", "[1,2]"), bad)
		read.fails("tls.ReadPlain: handle 1: tlsd has answered with a text that is not " +
			"base64 of at most 2 bytes")
	}
}

func TestAnAcceptWithoutAnAddressIsSentAsItIs(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	accept := h.start("Accept", 1, "", 0)
	p.fail(p.expect("tls.Accept", `[1,"",0,1]`), "no")
	accept.fails("no")
}

// errorOf checks the kind and the code of the main thread's last call.
func (h *host) errorOf(kind string, code int) {
	h.t.Helper()
	h.send("ErrorKind").gives(int64(len(kind)), kind)
	text := strconv.Itoa(code)
	h.send("ErrorCode").gives(int64(len(text)), text)
}

// answers does tlsd's part of the call c: it reads the request, and sends an answer that has the
// JSON text member ("result":… or "error":…). Then it returns what the call gives to the host.
func (p *peer) answers(c *pending, method, member string) result {
	p.t.Helper()
	r := p.request()
	if r.Method != method {
		p.t.Fatalf("the plugin sends %s; want %s", r.Method, method)
	}
	p.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,%s}`+"\n", *r.ID, member))
	return c.wait()
}

func TestAnErrorHasItsKindAndCode(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	h.errorOf("", 0)
	for _, c := range []struct {
		error, kind string
		code        int
	}{
		{`{"code":-32005,"message":"m","data":{"kind":"connect","errno":"ECONNREFUSED"}}`,
			"connect", -32005},
		{`{"code":-32601,"message":"m","data":{"kind":"params"}}`, "params", -32601},
		{`{"code":-32099,"message":"m","data":{"kind":"new-kind"}}`, "new-kind", -32099},
		{`{"code":-32005,"message":"m"}`, "internal", -32603},
		{`{"code":-32005,"message":"m","data":"connect"}`, "internal", -32603},
		{`{"code":-32005,"message":"m","data":{"kind":7}}`, "internal", -32603},
		{`{"code":-32005,"message":"m","data":{"kind":""}}`, "internal", -32603},
		{`{"code":-32005,"message":"m","data":{"kind":"\u0063onnect"}}`,
			"internal", -32603},
		{`{"code":-32005,"message":"m","data":{"kind":"a-kind-with-24-characters"}}`,
			"internal", -32603},
		{`{"code":5,"message":"m","data":{"kind":"verify"}}`, "verify", -32007},
		{`{"code":"x","message":"m","data":{"kind":"verify"}}`, "verify", -32007},
		{`{"code":-99999999999,"message":"m","data":{"kind":"verify"}}`, "verify", -32007},
	} {
		if r := p.answers(h.send("NewClient", "h", 1), "tls.NewClient",
			`"error":`+c.error); r.N != -1 || r.Text != "m" {
			t.Errorf("a NewClient that tlsd answers with the error %s gives %d, %q; "+
				"want -1, \"m\"", c.error, r.N, r.Text)
		}
		h.errorOf(c.kind, c.code)
		h.send("LastError").gives(1, "m") // LastError changes neither kind nor code
		h.errorOf(c.kind, c.code)
	}
	if r := p.answers(h.send("NewClient", "h", 1), "tls.NewClient", `"result":7`); r.N != 7 {
		t.Errorf("NewClient gives %d, %q; want 7", r.N, r.Text)
	}
	h.errorOf("", 0)
	h.send("LastError").gives(1, "m") // a success clears kind and code, but not the text
}

// An error that the plugin makes itself, without tlsd, also has a kind and a code.
func TestErrorsOfThePluginHaveKinds(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	for _, c := range []struct {
		op   string
		args []any
		kind string
		code int
	}{
		{"NewClient", []any{null, 1}, "params", -32602},
		{"SetOption", []any{1, null, "x"}, "params", -32602},
		{"SetOption", []any{1, "alpn", null}, "params", -32602},
		{"SetCertificate", []any{1, "", "", "/k"}, "params", -32602},
		{"SetCertificate", []any{1, null, "/c", "/k"}, "params", -32602},
		{"Listen", []any{1, null, 1}, "params", -32602},
		{"Info", []any{1, null}, "params", -32602},
		{"Info", []any{1, "\xff"}, "params", -32602},
		{"ReadPlain", []any{1, 0}, "params", -32602},
		{"ReadPlain", []any{1, 1<<24 + 1}, "params", -32602},
		{"ReadPlain", []any{1, 1, "no buffer"}, "params", -32602},
		{"Read", []any{1, 0}, "params", -32602},
	} {
		if r := h.call(c.op, c.args...); r.N != -1 {
			t.Errorf("%s %v gives %d, %q; want -1", c.op, c.args, r.N, r.Text)
		}
		h.errorOf(c.kind, c.code)
	}
	// tlsd does not answer this Backend. When the session ends, Backend gives "stub" and no
	// error.
	h.send("Backend")
	p.expect("tls.Backend", "[]")
	p.conn.Close()
	h.send("Info", 1, "alpn").fails("tls.Info: handle 1: lost: ")
	h.errorOf("lost", -32013)

	stranger := startHost(t, "TLSD_SOCKET="+filepath.Join(nowhere(t), "none"))
	stranger.send("Info", 1, "alpn").fails("tls.Info: handle 1: no such handle")
	stranger.errorOf("handle", -32001)
	stranger.send("NewClient", "h", 1).fails("tls.NewClient: backend: ")
	stranger.errorOf("backend", -32003)
	stranger.send("Backend").gives(4, "stub") // without a tlsd, Backend gives no error
	stranger.errorOf("", 0)
}

// LastError gives the last error of the thread that calls it. If this thread has had no error, it
// gets the last error of the process.
func TestTheLastErrorIsTheThreads(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	other := h.start("Handshake", 1)
	p.fail(p.expect("tls.Handshake", "[1,1]"), "of another thread")
	other.fails("of another thread")
	h.send("LastError").gives(17, "of another thread")
	h.errorOf("", 0)
	h.send("Read", 1, 0).fails("tls.Read: maxBytes 0")
	other = h.start("Handshake", 1)
	p.fail(p.expect("tls.Handshake", "[1,1]"), "of another thread")
	other.fails("of another thread")
	h.send("LastError").begins("tls.Read: maxBytes 0")
	h.errorOf("params", -32602)
	h.start("LastError").gives(17, "of another thread")
}

// begins checks how the text of a result begins.
func (p *pending) begins(start string) {
	p.t.Helper()
	if r := p.wait(); !strings.HasPrefix(r.Text, start) {
		p.t.Errorf("%s gives %q, want %q…", p.Op, r.Text, start)
	}
}

// With the option "handshake" set to "later", a server first talks to its client in plain text.
// Until it calls Handshake, Read and Write of the accepted connection fail.
func TestAServerChangesToTLSLater(t *testing.T) {
	t.Parallel()
	d := startTLSD(t)
	ca := testcert.NewCA(t, "Test CA")
	cert := ca.Localhost(t)
	h := startHost(t, d.env())
	h.send("chdir", filepath.Dir(cert.CertFile)).gives(0, "")
	h.send("NewServerContext", filepath.Base(cert.CertFile),
		filepath.Base(cert.KeyFile)).gives(1, "")
	h.send("SetOption", 1, "handshake", "sometime").fails("tls.SetOption: handle 1: ",
		"accept or later")
	h.errorOf("params", -32602)
	h.send("SetOption", 1, "handshake", "later").gives(0, "")
	h.send("SetCertificate", 1, "", "missing.pem", "missing.key").fails("tls.SetCertificate: ",
		filepath.Dir(cert.CertFile)+"/missing.pem")
	h.errorOf("file", -32004)
	h.send("SetCertificate", 1, "", filepath.Base(cert.CertFile),
		filepath.Base(cert.KeyFile)).gives(0, "")
	port := h.call("Listen", 1, "127.0.0.1", 0).N

	ended := make(chan error, 1)
	go func() { ended <- upgrade(ca, int(port)) }()
	h.send("Accept", 1, "", 0).gives(2, "")
	h.send("Write", 2, []byte("too early")).fails("tls.Write: handle 2: ")
	h.errorOf("state", -32002)
	h.send("Read", 2, 100).fails("tls.Read: handle 2: ")
	h.errorOf("state", -32002)
	h.send("Descriptor", 2).fails(
		"tls.Descriptor: handle 2: the connection has no descriptor before its handshake")
	h.send("Info", 2, "cipher").fails("tls.Info: handle 2: ")
	h.errorOf("state", -32002)
	if r := h.call("Info", 2, "peer-address"); !strings.HasPrefix(r.Text, "127.0.0.1:") {
		t.Errorf("Info of peer-address gives %d, %q; want 127.0.0.1 and a port", r.N,
			r.Text)
	}
	h.send("WritePlain", 2, []byte("220 ready\n")).gives(10, "")
	h.send("ReadPlain", 2, 100).reads("STARTTLS\n")
	h.send("WritePlain", 2, []byte("220 go\n")).gives(7, "")
	h.send("Handshake", 2).gives(0, "")
	h.send("Handshake", 2).gives(0, "")
	h.send("WritePlain", 2, []byte("x")).fails("tls.WritePlain: handle 2: ")
	h.errorOf("state", -32002)
	h.send("Info", 2, "version").gives(7, "TLSv1.3")
	h.send("Write", 2, []byte("secret")).gives(6, "")
	h.send("Read", 2, 100).reads("answer")
	if r := h.call("Descriptor", 2); r.N < 3 {
		t.Errorf("Descriptor gives %d, %q; want a descriptor, 3 or more", r.N, r.Text)
	}
	h.send("Close", 2).gives(0, "")
	if err := <-ended; err != nil {
		t.Error(err)
	}

	// If a client leaves before the handshake, the host can close its connection. No descriptor
	// of the connection is left open.
	before := h.call("status").Text
	c, err := net.Dial("tcp", testkit.Addr(int(port)))
	if err != nil {
		t.Fatal(err)
	}
	h.send("Accept", 1, "", 0).gives(3, "")
	c.Close()
	h.send("ReadPlain", 3, 1).gives(0, "")
	h.send("Close", 3).gives(0, "")
	if after := h.call("status").Text; after != before {
		t.Errorf("Close has left something behind; before\n%s\nafter\n%s", before, after)
	}
	h.send("Read", 3, 1).fails("tls.Read: handle 3: ")
	h.errorOf("handle", -32001)
}

// upgrade is a client that begins in plain text, and changes to TLS with STARTTLS. It returns an
// error if the server sends something else than this test's server.
func upgrade(ca *testcert.CA, port int) error {
	c, err := net.Dial("tcp", testkit.Addr(port))
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testkit.Patience))
	line := make([]byte, 10)
	if _, err := io.ReadFull(c, line); err != nil || string(line) != "220 ready\n" {
		return fmt.Errorf("greeted with %q, %v", line, err)
	}
	io.WriteString(c, "STARTTLS\n")
	if _, err := io.ReadFull(c, line[:7]); err != nil || string(line[:7]) != "220 go\n" {
		return fmt.Errorf("answered with %q, %v", line[:7], err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	s := tls.Client(c, &tls.Config{RootCAs: pool, ServerName: "localhost"})
	secret := make([]byte, 6)
	if _, err := io.ReadFull(s, secret); err != nil || string(secret) != "secret" {
		return fmt.Errorf("read %q, %v", secret, err)
	}
	if _, err := io.WriteString(s, "answer"); err != nil {
		return err
	}
	if rest, err := io.ReadAll(s); err != nil || len(rest) > 0 {
		return fmt.Errorf("at the end: %q, %v", rest, err)
	}
	return nil
}
