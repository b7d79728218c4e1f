package e2e

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// tlsd's key log has the secrets of all its connections. The peers of these connections are
// crypto/tls, and write the same secrets in the same format. The key log must have all lines of the
// peers.
func TestTheKeyLogHasTheSecretsThatThePeersHave(t *testing.T) {
	t.Parallel()
	file := filepath.Join(testkit.Dir(t), "keys")
	d := testd.Start(t, "--key-log", file, "--isolation=shared", "--workers=2")
	ca := testcert.NewCA(t, "Test CA")
	cert := ca.Localhost(t)
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	defer cancel()
	peers := new(output)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := d.Dial(t)

		// tlsd is the client.
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
			Certificates: []tls.Certificate{cert.TLS()}, MaxVersion: version,
			KeyLogWriter: peers,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			if conn, err := l.Accept(); err == nil {
				io.Copy(io.Discard, conn)
				conn.Close()
			}
		}()
		if err := c.SetCaBundle(ctx, ca.File); err != nil {
			t.Fatal(err)
		}
		h, err := c.NewClient(ctx, "localhost", l.Addr().(*net.TCPAddr).Port)
		if err == nil {
			err = c.Handshake(ctx, h)
		}
		if err != nil {
			t.Fatal(err)
		}

		// tlsd is the server.
		server, err := c.NewServerContext(ctx, cert.CertFile, cert.KeyFile)
		var port int
		if err == nil {
			err = c.Call(ctx, "tls.Listen", []any{server, "127.0.0.1", 0}, &port)
		}
		if err != nil {
			t.Fatal(err)
		}
		peer, err := tls.Dial("tcp", testkit.Addr(port), &tls.Config{
			RootCAs: ca.Pool(), ServerName: "localhost", MaxVersion: version,
			KeyLogWriter: peers,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		if _, err := c.Accept(ctx, server, "", 0); err != nil {
			t.Fatal(err)
		}
	}
	st, err := os.Stat(file)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("Stat of the key log: %v, error %v; want mode 0600", st, err)
	}
	ours := strings.Split(strings.ToLower(readFile(t, file)), "\n")
	known := map[string]bool{}
	for _, line := range ours {
		known[line] = true
	}
	theirs := strings.Split(strings.ToLower(strings.TrimSpace(peers.String())), "\n")
	if len(theirs) != 2*(1+4) { // with TLS 1.2 one line, and with TLS 1.3 four
		t.Fatalf("the peers have written %d secrets, want 10: %q", len(theirs), theirs)
	}
	for _, line := range theirs {
		if !known[line] {
			t.Errorf("the key log lacks %q; it has %q", line, ours)
		}
	}
	for _, want := range []string{`"level":"warn"`, `"logger":"audit"`} {
		testkit.Until(t, "the log has a line with "+want+" that names the key log",
			func() bool {
				for line := range strings.Lines(d.Log(t)) {
					if strings.Contains(line, file) &&
						strings.Contains(line, want) {
						return true
					}
				}
				return false
			})
	}
	log := d.Log(t)
	for _, line := range theirs {
		// A line is: label, client random, secret.
		f := strings.Fields(line)
		if len(f) != 3 {
			t.Fatalf("the peers have written %q, want three fields", line)
		}
		if strings.Contains(strings.ToLower(log), f[2]) {
			t.Errorf("tlsd's log has the secret %s of the key log", f[0])
		}
	}
}
