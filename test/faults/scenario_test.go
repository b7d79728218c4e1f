package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// A world has the peers and files of the scenarios: servers of TLS on loopback, certificates,
// files.
type world struct {
	ca       *testcert.CA
	otherCA  *testcert.CA // has signed no certificate of a peer
	cert     *testcert.Cert
	emptyDir string
	badPEM   string // a file with a PEM block that is no certificate
	wrongKey string

	// These are ports of servers. The answering server reads as many bytes as the payload has,
	// sends them back, and then sends close_notify.
	answer int
	old    int // the answering server with TLS 1.2
	echo   int // sends back what it gets, at once
	cut    int // sends a little, and cuts the connection
	named  int // has a certificate for another name
}

// payload is the data for the answering server. It takes several records.
var payload = bytes.Repeat([]byte("0123456789abcdef"), 40<<10/16)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{ca: testcert.NewCA(t, "Test CA"), otherCA: testcert.NewCA(t, "Other CA"),
		emptyDir: t.TempDir()}
	w.cert = w.ca.Localhost(t)
	w.wrongKey = w.cert.MismatchedKey(t)
	w.badPEM = filepath.Join(t.TempDir(), "bad.pem")
	testkit.Must(t, os.WriteFile(w.badPEM,
		[]byte("-----BEGIN CERTIFICATE-----\nMIIBAAAA\n-----END "+
			"CERTIFICATE-----\n"), 0o644))
	named := w.ca.Issue(t, testcert.Leaf{CN: "other.example", DNS: []string{"other.example"}})

	answer := func(conn *tls.Conn) {
		p := make([]byte, len(payload))
		if _, err := io.ReadFull(conn, p); err == nil {
			conn.Write(p)
			conn.CloseWrite()
			io.Copy(io.Discard, conn)
		}
	}
	w.answer = testkit.ServeTLS(t, w.cert.Config(), answer)
	w.old = testkit.ServeTLS(t, &tls.Config{Certificates: []tls.Certificate{w.cert.TLS()},
		MaxVersion: tls.VersionTLS12}, answer)
	w.echo = testkit.Echo(t, w.cert.TLS())
	w.cut = testkit.ServeTLS(t, w.cert.Config(), func(conn *tls.Conn) {
		conn.Write([]byte("cut"))
		conn.NetConn().Close()
	})
	w.named = testkit.Echo(t, named.TLS())
	return w
}

// A visit is one run of a scenario, in a session of its own.
type visit struct {
	t   *testing.T
	ctx context.Context
	c   *client.Client
	w   *world

	// garbled is the function that returns garbage, or "". If tlsd hands its result to the
	// caller, the caller's answer may be wrong.
	garbled string

	h   client.Handle // of the connection that prepare has made
	op  string        // the call that has failed, if any
	end error         // the error of this call; nil if no call has failed
}

// v.did notes how a call has ended, and says whether the scenario goes on.
func (v *visit) did(op string, err error) bool {
	if err != nil {
		v.op, v.end = op, err
	}
	return err == nil
}

func (v *visit) wrong(format string, args ...any) {
	v.t.Helper()
	v.t.Errorf(format, args...)
}

// A scenario is a script's conversation with tlsd.
type scenario struct {
	name    string
	prepare func(v *visit) // before there is a fault; may be nil
	run     func(v *visit)
	ends    string // the kind of the error with which it ends without a fault; "": no error
	// The peer must not be trusted: whatever the fault is, the handshake must not succeed.
	stranger bool
}

var scenarios = []scenario{
	{name: "client", run: func(v *visit) {
		if v.did("tls.SetCaBundle", v.c.SetCaBundle(v.ctx, v.w.ca.File)) {
			v.talk("localhost", v.w.answer)
		}
	}},
	{name: "client that resumes", run: func(v *visit) {
		if v.did("tls.SetCaBundle", v.c.SetCaBundle(v.ctx, v.w.ca.File)) {
			for range 2 {
				h, err := v.c.NewClient(v.ctx, "localhost", v.w.old)
				if v.did("tls.NewClient", err) &&
					v.did("tls.Handshake", v.c.Handshake(v.ctx, h)) {
					v.exchange(h)
				}
			}
		}
	}},
	{name: "client by address", run: func(v *visit) {
		if v.did("tls.SetCaBundle", v.c.SetCaBundle(v.ctx, v.w.ca.File)) {
			v.talk("127.0.0.1", v.w.answer)
		}
	}},
	{name: "client with the system's store", run: func(v *visit) {
		if _, err := v.c.Info(v.ctx); v.did("tls.Info", err) {
			v.talk("localhost", v.w.answer)
		}
	}},
	{name: "client that verifies nothing", run: func(v *visit) {
		if !v.did("tls.SetCaBundle", v.c.SetCaBundle(v.ctx, v.w.otherCA.File)) {
			return
		}
		h, err := v.c.NewClient(v.ctx, "localhost", v.w.answer)
		if v.did("tls.NewClient", err) &&
			v.did("tls.SetInsecureSkipVerify",
				v.c.SetInsecureSkipVerify(v.ctx, h, true)) {
			v.converse(h)
		}
	}},
	{name: "open connection", prepare: func(v *visit) { v.h = v.connect(v.w.answer) },
		run: func(v *visit) { v.exchange(v.h) }},
	{name: "client with options", run: (*visit).optTalk},
	{name: "server", run: (*visit).accept},
	{name: "server with options", run: (*visit).optAccept},
	{name: "unknown authority", ends: "verify", stranger: true, run: func(v *visit) {
		if v.did("tls.SetCaBundle", v.c.SetCaBundle(v.ctx, v.w.otherCA.File)) {
			v.refuse("localhost", v.w.echo)
		}
	}},
	{name: "wrong name", ends: "verify", stranger: true, run: func(v *visit) {
		if v.did("tls.SetCaBundle", v.c.SetCaBundle(v.ctx, v.w.ca.File)) {
			v.refuse("localhost", v.w.named)
		}
	}},
	{name: "wrong address", ends: "verify", stranger: true, run: func(v *visit) {
		if v.did("tls.SetCaBundle", v.c.SetCaBundle(v.ctx, v.w.ca.File)) {
			v.refuse("127.0.0.1", v.w.named)
		}
	}},
	{name: "cut connection", ends: "io", prepare: func(v *visit) { v.h = v.connect(v.w.cut) },
		run: (*visit).meetCut},
	{name: "bad file", ends: "file", run: func(v *visit) {
		err := v.c.SetCaBundle(v.ctx, v.w.badPEM)
		if err == nil {
			v.wrong("tlsd has accepted a CA bundle without a certificate")
		}
		v.did("tls.SetCaBundle", err)
	}},
	{name: "wrong key", ends: "file", run: func(v *visit) {
		_, err := v.c.NewServerContext(v.ctx, v.w.cert.CertFile, v.w.wrongKey)
		if err == nil {
			v.wrong("tlsd has accepted a key that does not belong to the certificate")
		}
		v.did("tls.NewServerContext", err)
	}},
}

// talk is a client's whole conversation with the answering server.
func (v *visit) talk(host string, port int) {
	if _, err := v.c.Version(v.ctx, 0); !v.did("tls.Version", err) {
		return
	}
	if h, err := v.c.NewClient(v.ctx, host, port); v.did("tls.NewClient", err) {
		v.converse(h)
	}
}

func (v *visit) converse(h client.Handle) {
	if v.did("tls.Handshake", v.c.Handshake(v.ctx, h)) && v.describe(h, "/CN=localhost") {
		v.exchange(h)
	}
}

// exchange sends the payload, and must read the same bytes and then the end.
func (v *visit) exchange(h client.Handle) {
	n, err := v.c.Write(v.ctx, h, payload)
	if !v.did("tls.Write", err) {
		return
	}
	if n != len(payload) {
		v.wrong("Write has written %d bytes of %d", n, len(payload))
	}
	got, ok := v.readAll(h)
	if !ok {
		return
	}
	if !bytes.Equal(got, payload) {
		v.wrong("Read reports the end after %d bytes of %d", len(got), len(payload))
	}
	v.did("tls.Close", v.c.CloseConn(v.ctx, h))
}

// readAll reads to the end. The data must be a beginning of the payload.
func (v *visit) readAll(h client.Handle) (got []byte, ok bool) {
	for {
		part, err := v.c.Read(v.ctx, h, 30000)
		if !v.did("tls.Read", err) {
			return got, false
		}
		if len(part) == 0 {
			return got, true
		}
		if got = append(got, part...); !bytes.HasPrefix(payload, got) {
			at := len(got) - len(part)
			v.wrong("Read has given %.60q after %d bytes, want %.60q", part, at,
				payload[min(at, len(payload)):])
			return got, false
		}
	}
}

// describe asks for the version and the peer's subject of a connection, and checks them.
func (v *visit) describe(h client.Handle, subject string) bool {
	version, err := v.c.Version(v.ctx, h)
	if !v.did("tls.Version", err) {
		return false
	}
	if version != "TLSv1.3" && v.garbled != "SSL_get_version" {
		v.wrong("Version is %q, want TLSv1.3", version)
	}
	got, err := v.c.PeerCertSubject(v.ctx, h)
	if !v.did("tls.PeerCertSubject", err) {
		return false
	}
	if got != subject && !(got == "" && v.garbled == "SSL_get1_peer_certificate") &&
		v.garbled != "X509_NAME_oneline" {
		v.wrong("PeerCertSubject is %q, want %q", got, subject)
	}
	return true
}

// refuse is a client that must not complete a handshake with the server.
func (v *visit) refuse(host string, port int) {
	h, err := v.c.NewClient(v.ctx, host, port)
	if !v.did("tls.NewClient", err) {
		return
	}
	err = v.c.Handshake(v.ctx, h)
	if err == nil {
		v.wrong("THE HANDSHAKE WITH A PEER THAT MUST NOT BE TRUSTED HAS SUCCEEDED")
	}
	if _, err := v.c.Write(v.ctx, h, []byte("secret")); err == nil {
		v.wrong("Write has sent data to a peer that must not be trusted")
	}
	v.did("tls.Handshake", err)
}

// connect opens a connection before there is a fault. An error ends the test.
func (v *visit) connect(port int) client.Handle {
	v.t.Helper()
	testkit.Must(v.t, v.c.SetCaBundle(v.ctx, v.w.ca.File))
	h, err := v.c.NewClient(v.ctx, "localhost", port)
	testkit.Must(v.t, err)
	testkit.Must(v.t, v.c.Handshake(v.ctx, h))
	return h
}

// meetCut reads from a connection that is cut. Read must never report the end.
func (v *visit) meetCut() {
	for got := ""; ; {
		part, err := v.c.Read(v.ctx, v.h, 100)
		if !v.did("tls.Read", err) {
			return
		}
		if len(part) == 0 {
			v.wrong("Read reports the end of a connection that was cut, after %q", got)
			return
		}
		if got += string(part); !slices.Contains([]string{"c", "cu", "cut"}, got) {
			v.wrong("Read has given %q, want a beginning of \"cut\"", got)
			return
		}
	}
}

// accept serves one client.
func (v *visit) accept() {
	ctx, err := v.c.NewServerContext(v.ctx, v.w.cert.CertFile, v.w.cert.KeyFile)
	if !v.did("tls.NewServerContext", err) {
		return
	}
	port := testkit.Port(v.t)
	var peer sync.WaitGroup
	over, stop := context.WithCancel(v.ctx)
	defer peer.Wait()
	defer stop()
	peer.Go(func() { v.w.visitServer(over, port) })
	h, err := v.c.Accept(v.ctx, ctx, "127.0.0.1", port)
	if !v.did("tls.Accept", err) || !v.describe(h, "") {
		return
	}
	got := []byte{}
	for len(got) < len(payload) {
		part, err := v.c.Read(v.ctx, h, 30000)
		if !v.did("tls.Read", err) {
			return
		}
		got = append(got, part...)
		if len(part) == 0 || !bytes.HasPrefix(payload, got) {
			at := len(got) - len(part)
			v.wrong("Read has given %.60q after %d bytes, want %.60q", part, at,
				payload[at:])
			return
		}
	}
	if _, err = v.c.Write(v.ctx, h, payload); !v.did("tls.Write", err) {
		return
	}
	if v.did("tls.Close", v.c.CloseConn(v.ctx, h)) {
		v.did("tls.CloseServerContext", v.c.CloseServerContext(v.ctx, ctx))
	}
}

// call makes a call of a method for which the client has no function.
func (v *visit) call(result any, method string, params ...any) bool {
	return v.did(method, v.c.Call(v.ctx, method, params, result))
}

// optTalk is a client that sets options and a certificate. It calls tls.Info for all facts.
func (v *visit) optTalk() {
	if !v.did("tls.SetCaBundle", v.c.SetCaBundle(v.ctx, v.w.ca.File)) {
		return
	}
	h, err := v.c.NewClient(v.ctx, "localhost", v.w.answer)
	if v.did("tls.NewClient", err) && v.call(nil, "tls.SetOption", h, "alpn", "h2,http/1.1") &&
		v.call(nil, "tls.SetOption", h, "min-version", "1.3") &&
		v.call(nil, "tls.SetCertificate", h, "", v.w.cert.CertFile, v.w.cert.KeyFile) &&
		v.did("tls.Handshake", v.c.Handshake(v.ctx, h)) && v.call(nil, "tls.Info", h, "") {
		v.exchange(h)
	}
}

// optAccept is a server with several options and two certificates, for one client.
func (v *visit) optAccept() {
	ctx, err := v.c.NewServerContext(v.ctx, v.w.cert.CertFile, v.w.cert.KeyFile)
	port := 0
	if !v.did("tls.NewServerContext", err) ||
		!v.call(nil, "tls.SetOption", ctx, "alpn", "h2") ||
		!v.call(nil, "tls.SetOption", ctx, "client-ca", v.w.ca.File) ||
		!v.call(nil, "tls.SetOption", ctx, "client-cert", "request") ||
		!v.call(nil, "tls.SetOption", ctx, "session-resumption", "off") ||
		!v.call(nil, "tls.SetCertificate", ctx, "localhost", v.w.cert.CertFile,
			v.w.cert.KeyFile) ||
		!v.call(&port, "tls.Listen", ctx, "127.0.0.1", 0) {
		return
	}
	var peer sync.WaitGroup
	over, stop := context.WithCancel(v.ctx)
	defer peer.Wait()
	defer stop()
	peer.Go(func() { v.w.visitServer(over, port) })
	var h client.Handle
	if v.call(&h, "tls.Accept", ctx, "", 0) && v.call(nil, "tls.Info", h, "") &&
		v.did("tls.Close", v.c.CloseConn(v.ctx, h)) {
		v.did("tls.CloseServerContext", v.c.CloseServerContext(v.ctx, ctx))
	}
}

// visitServer is the client of a session that accepts. It tries again until the server listens.
func (w *world) visitServer(ctx context.Context, port int) {
	addr := testkit.Addr(port)
	for ctx.Err() == nil {
		var d net.Dialer
		nc, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			time.Sleep(2 * time.Millisecond) // nobody listens yet
			continue
		}
		conn := tls.Client(nc, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost",
			NextProtos: []string{"h2"}})
		stop := context.AfterFunc(ctx, func() { nc.Close() })
		if conn.HandshakeContext(ctx) == nil {
			conn.Write(payload)
			io.Copy(io.Discard, conn)
		}
		stop()
		conn.Close()
		return
	}
}
