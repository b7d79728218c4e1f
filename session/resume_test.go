package session_test

import (
	"crypto/tls"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// resumed makes a client, does its handshake, exchanges a line so that late tickets arrive, and
// closes the client. It says whether the connection has resumed a TLS session.
func (r *rig) resumed(port int, options ...string) string {
	r.t.Helper()
	h := r.handle(r.NewClient("localhost", port))
	for i := 0; i < len(options); i += 2 {
		r.ok(r.SetOption(h, options[i], options[i+1]))
	}
	r.ok(r.Handshake(h))
	r.ok(r.Write(h, []byte("x\n")))
	r.ok(r.Read(h, 1))
	resumed := r.fact(h, "resumed")
	if r.fact(h, "verified") != "1" || r.fact(h, "subject") != "/CN=localhost" ||
		r.fact(h, "pem") != string(r.cert.CertPEM) {
		r.t.Errorf("resumed %s: verified %s, subject %s", resumed, r.fact(h, "verified"),
			r.fact(h, "subject"))
	}
	r.ok(r.Close(h))
	return resumed
}

func TestASessionResumesItsOwnTLSSessions(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12,
		"1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRealRig(t)
			echo := func(c *tls.Conn, _ *net.TCPConn) {
				io.Copy(c, c)
				c.Close()
			}
			port := r.serveTLS(&tls.Config{MaxVersion: version}, echo)
			for _, c := range []struct {
				options []string
				want    string
			}{
				{nil, "0"},
				{nil, "1"},
				{[]string{"session-resumption", "off"}, "0"},
				{[]string{"session-resumption", "off", "session-resumption", "on"},
					"1"},
				{[]string{"ca", r.ca.File}, "1"}, // the same certificates
				{[]string{"server-name", "127.0.0.1"}, "0"},
				{[]string{"server-name", "127.0.0.1"}, "1"},
			} {
				if got := r.resumed(port, c.options...); got != c.want {
					t.Errorf("with %q: resumed %s, want %s",
						c.options, got, c.want)
				}
			}
			other := newRealRig(t)
			other.cert = r.cert
			other.ok(other.SetCaBundle(r.ca.File))
			if other.resumed(port) != "0" {
				t.Error("another session has resumed a TLS session of the first")
			}
		})
	}
}

// OpenSSL's own server sends two tickets after its handshake with TLS 1.3.
func TestSessionsOfOpenSSLsServerAreResumed(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs the program openssl")
	}
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			r := newRealRig(t)
			port := r.runServer(openssl, version)
			if first, again := r.resumed(port), r.resumed(port); first != "0" ||
				again != "1" {
				t.Errorf("resumed: %s, then %s", first, again)
			}
		})
	}
}

// runServer runs openssl s_server, which sends each line back in reverse. It returns the server's
// port.
func (r *rig) runServer(openssl, version string) int {
	r.t.Helper()
	cmd := exec.Command(openssl, "s_server", "-accept", "127.0.0.1:0", "-cert", r.cert.CertFile,
		"-key", r.cert.KeyFile, version, "-rev")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	var seen strings.Builder
	buf := make([]byte, 1024)
	for {
		n, err := out.Read(buf)
		seen.Write(buf[:n])
		if _, rest, ok := strings.Cut(seen.String(), "ACCEPT 127.0.0.1:"); ok &&
			strings.Contains(rest, "\n") {
			port, err := strconv.Atoi(
				strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
			if err != nil {
				r.t.Fatalf("%q: %v", seen.String(), err)
			}
			go io.Copy(io.Discard, out)
			return port
		}
		if err != nil {
			r.t.Fatalf("s_server: %v: %q", err, seen.String())
		}
	}
}
