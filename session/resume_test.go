package session_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// resumed makes a client, does its handshake and closes it. It returns the fact "resumed": "1" if
// the connection has resumed a TLS session. The client exchanges a line, because with TLS 1.3
// tickets come after the handshake.
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
		r.t.Errorf("resumed is %s, verified %s, subject %s; want verified 1, and the "+
			"subject and pem of the server's certificate", resumed,
			r.fact(h, "verified"), r.fact(h, "subject"))
	}
	r.ok(r.Close(h))
	return resumed
}

// TestASessionResumesItsOwnTLSSessions: a client resumes the TLS session of an earlier client of
// the same session, if their settings are equal.
func TestASessionResumesItsOwnTLSSessions(t *testing.T) {
	t.Parallel()
	versions := map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRealRig(t)
			echo := func(c *tls.Conn, _ *net.TCPConn) {
				io.Copy(c, c)
				c.Close()
			}
			port := r.serveTLS(&tls.Config{MaxVersion: version}, echo)
			const resumption = "session-resumption"
			for _, c := range []struct {
				client  string
				resumes string
				options []string
			}{
				{"that is the first", "0", nil},
				{"that is the second", "1", nil},
				{"with resumption off", "0", []string{resumption, "off"}},
				{"with resumption on again", "1",
					[]string{resumption, "off", resumption, "on"}},
				{"with the same CA from a file", "1",
					[]string{"ca", r.ca.File}},
				{"with another name", "0",
					[]string{"server-name", "127.0.0.1"}},
				{"with that name again", "1",
					[]string{"server-name", "127.0.0.1"}},
			} {
				got := r.resumed(port, c.options...)
				if got != c.resumes {
					t.Errorf("the client %s: resumed is %s, want %s", c.client,
						got, c.resumes)
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

// The server is openssl s_server. With TLS 1.3 it sends two tickets after the handshake.
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
				t.Errorf("resumed is %s, and then %s; want 0, and then 1", first,
					again)
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
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if digits, ok := strings.CutPrefix(lines.Text(), "ACCEPT 127.0.0.1:"); ok {
			port, err := strconv.Atoi(strings.TrimSpace(digits))
			if err != nil {
				r.t.Fatal(err)
			}
			go io.Copy(io.Discard, out)
			return port
		}
	}
	r.t.Fatal("s_server does not say where it listens")
	return 0
}
