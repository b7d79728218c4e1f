package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// The flags --failed-handshakes and --reload-certificates work for scripts that know nothing of
// them.

// linesOf returns the entries of a daemon's log whose message is this text.
func linesOf(t *testing.T, d *testd.Daemon, text string) (found []map[string]any) {
	t.Helper()
	for line := range strings.Lines(d.Log(t)) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == text {
			found = append(found, entry)
		}
	}
	return found
}

// With --failed-handshakes=skip, Accept does not fail if a client's handshake fails: it waits for
// the next client. The log has each handshake, failed or not.
func TestHandshakesThatFailAreSkippedAndLogged(t *testing.T) {
	t.Parallel()
	d := testd.Start(t, "--failed-handshakes=skip")
	ca := testcert.NewCA(t, "Test CA")
	cert := ca.Localhost(t)
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	c := d.Dial(t)
	server, err := c.NewServerContext(ctx, cert.CertFile, cert.KeyFile)
	var port int
	if err == nil {
		err = c.Call(ctx, "tls.Listen", []any{server, "127.0.0.1", 0}, &port)
	}
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan error, 1)
	var h client.Handle
	go func() {
		var err error
		h, err = c.Accept(ctx, server, "", 0)
		accepted <- err
	}()
	addr := testkit.Addr(port)
	scan, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer scan.Close()
	if _, err := scan.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, "the log has the failed handshake", func() bool {
		return len(linesOf(t, d, "handshake")) == 1
	})
	peer, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if err := <-accepted; err != nil {
		t.Fatalf("Accept must skip a client that speaks HTTP, but it fails: %v", err)
	}
	if _, err := c.Write(ctx, h, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseConn(ctx, h); err != nil {
		t.Fatal(err)
	}
	c.Close()
	testkit.Until(t, "the log has the session's end", func() bool {
		return len(linesOf(t, d, "session ended")) == 1
	})

	shaken := linesOf(t, d, "handshake")
	if len(shaken) != 2 {
		t.Fatalf("the log has %d handshakes, want 2: %v", len(shaken), shaken)
	}
	if f := shaken[0]; f["level"] != "info" || f["role"] != "server" ||
		f["peer"] != scan.LocalAddr().String() || f["skipped"] != true ||
		f["kind"] != "handshake" || !strings.Contains(f["failure"].(string), "HTTP") ||
		f["milliseconds"].(float64) < 0 || f["session"] == nil {
		t.Errorf("the log has wrong facts about the failed handshake: %v", f)
	}
	if f := shaken[1]; f["peer"] != peer.LocalAddr().String() || f["version"] != "TLSv1.3" ||
		f["cipher"] == "" || f["failure"] != nil {
		t.Errorf("the log has wrong facts about the good handshake: %v", f)
	}
	serial := cert.Cert.SerialNumber.Text(16)
	if f := linesOf(t, d, "certificate"); len(f) != 1 || f[0]["path"] != cert.CertFile ||
		f[0]["serial"] != serial {
		t.Errorf("the log must have the server's certificate, once: %v", f)
	}
	f := linesOf(t, d, "session ended")[0]
	if f["handles"] != 2.0 || f["sent"] != 5.0 || f["received"] != 0.0 {
		t.Errorf("the log has wrong facts about the session's end: %v", f)
	}
}

// With --reload-certificates=auto, a server shows the renewed certificate after the administrator
// has replaced the files. The script does nothing for it.
func TestServersTakeRenewedCertificatesByThemselves(t *testing.T) {
	t.Parallel()
	d := testd.Start(t, "--reload-certificates=auto")
	ca := testcert.NewCA(t, "Test CA")
	old := ca.Issue(t, testcert.Leaf{DNS: []string{"localhost"}})
	renewed := ca.Issue(t, testcert.Leaf{DNS: []string{"localhost"}})
	dir := testkit.Dir(t)
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	put := func(path string, text []byte) {
		writeFile(t, path+".new", string(text))
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	put(cert, old.CertPEM)
	put(key, old.KeyPEM)
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	c := d.Dial(t)
	server, err := c.NewServerContext(ctx, cert, key)
	var port int
	if err == nil {
		err = c.Call(ctx, "tls.Listen", []any{server, "127.0.0.1", 0}, &port)
	}
	if err != nil {
		t.Fatal(err)
	}
	shown := func() string {
		peer, err := tls.Dial("tcp", testkit.Addr(port),
			&tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		if h, err := c.Accept(ctx, server, "", 0); err != nil {
			t.Fatal(err)
		} else if err := c.CloseConn(ctx, h); err != nil {
			t.Fatal(err)
		}
		return peer.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	if got := shown(); got != old.Cert.SerialNumber.String() {
		t.Fatalf("before the renewal, the server showed the certificate with the serial "+
			"%s, want the old certificate", got)
	}
	put(cert, renewed.CertPEM)
	testkit.Until(t, "the log says that certificate and key do not match", func() bool {
		shown()
		return len(linesOf(t, d, "certificate not reloaded")) > 0
	})
	put(key, renewed.KeyPEM)
	testkit.Until(t, "the server shows the renewed certificate", func() bool {
		return shown() == renewed.Cert.SerialNumber.String()
	})
	line := linesOf(t, d, "certificate not reloaded")[0]
	if line["level"] != "warn" || line["path"] != cert ||
		!strings.Contains(line["why"].(string), "does not match") {
		t.Errorf("the log has wrong facts about files that do not match: %v", line)
	}
}
