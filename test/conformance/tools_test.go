package conformance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
	"tlsd/session"
)

// curl and OpenSSL's commands talk with our side, and verify it.

// runTool runs a program, which gets no input, until it ends. runTool returns the output, and an
// error if the exit status is not 0.
func runTool(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C"} // no proxy, no curlrc
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// httpServer serves HTTP/1.1 on a listener of ours, until it has served the given number of
// clients. On each connection it answers one request with the body, and then ends the connection.
func httpServer(t *testing.T, l listener, clients int, body string) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			for range clients {
				s, err := l.accept(t)
				if err != nil {
					return err
				}
				var request []byte
				buf, end := make([]byte, 4096), []byte("\r\n\r\n")
				for !bytes.Contains(request, end) {
					n, err := s.Read(buf)
					if err != nil {
						return fmt.Errorf("no end of the request, which "+
							"begins with %q: %w", request, err)
					}
					request = append(request, buf[:n]...)
				}
				// No Content-Length: the body ends with the connection (RFC 9112
				// section 6.3). So the client notices if the connection is cut.
				const head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
				if _, err := io.WriteString(s, head+body); err != nil {
					return err
				}
				if err := s.Close(); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	return done
}

// curl verifies our server and gets its whole page. If curl does not trust the CA, it refuses the
// server, and our side reports that.
func TestCurlGetsOurPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		body := strings.Repeat(marker+" a page\n", 10_000)
		l := e.listen(t, listenOptions{cert: w.cert})
		urls := []string{fmt.Sprintf("https://localhost:%d/a", l.port()), fmt.Sprintf("https://127.0.0.1:%d/b", l.port())}
		done := httpServer(t, l, len(urls), body)
		for _, url := range urls {
			out, err := runTool(t, "curl", "--silent", "--show-error", "--fail",
				"--cacert", w.ca.File, url)
			if err != nil || out != body {
				t.Errorf("curl %s: %v; it got %d bytes, want the page of %d "+
					"bytes; what it got begins "+
					"with:\n%.300s", url, err, len(out),
					len(body), out)
			}
		}
		if err := <-done; err != nil {
			t.Errorf("our side as the HTTP server: %v", err)
		}
		// curl refuses the same server if it does not trust the authority.
		refused := accepting(t, l)
		out, err := runTool(t, "curl", "--silent", "--show-error", "--cacert", w.other.File,
			urls[0])
		// The exit status 60 is CURLE_PEER_FAILED_VERIFICATION.
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 60 {
			t.Errorf("curl without the authority: %v, want exit status 60\n%s", err,
				out)
		}
		// curl's alert ends the Accept. A curl that checks the certificate after the
		// handshake sends no alert, and the first Read fails. In both cases there is no
		// request.
		a := <-refused
		if a.err == nil {
			n, err := a.stream.Read(make([]byte, 100))
			if n != 0 || !isKind(err, client.KindIO) {
				t.Errorf("Read from a curl that has refused the server: %d "+
					"bytes, %v; want kind io", n, err)
			}
		} else if !isKind(a.err, client.KindHandshake) ||
			!mentions(failure(a.err), "alert") {
			t.Errorf("Accept of a curl that refuses the server: %v; want an alert",
				a.err)
		}
	})
}

// s_client verifies our server. The server shows its certificate and that of the intermediate CA.
func TestSClientVerifiesUs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		cert := secret(w.ca.Intermediate(t, "Between").Issue(t, localhost))
		l := e.listen(t, listenOptions{cert: cert})
		accepted := accepting(t, l)
		out, err := runTool(t, "openssl", "s_client", "-connect", testkit.Addr(l.port()),
			"-servername", "localhost", "-verify_hostname", "localhost",
			"-CAfile", w.ca.File, "-showcerts")
		if err != nil || !strings.Contains(out, "Verify return code: 0 (ok)") {
			t.Errorf("s_client: %v; want verify return code 0:\n%s", err, out)
		}
		if n := strings.Count(out, "BEGIN CERTIFICATE"); n != 2 {
			t.Errorf("s_client was shown %d certificates, want 2: the server's and "+
				"the intermediate CA's", n)
		}
		if a := <-accepted; a.err != nil {
			t.Errorf("Accept of s_client: %v", a.err)
		} else {
			expectEnd(t, e, a.stream)
		}
	})
}

// Our client gets the whole page of s_server, to the clean end of the connection.
func TestWeGetThePageOfSServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		port := testkit.Port(t)
		startOpenssl(t, []string{"s_server", "-www", "-accept", testkit.Addr(port),
			"-cert", w.cert.CertFile, "-key", w.cert.KeyFile})
		testd.AwaitListener(t, port)
		s, err := e.dial(t, address{"localhost", port}, dialOptions{ca: w.ca.File})
		if err != nil {
			t.Fatal(err)
		}
		if err := write(s, "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(s) // fails if the connection is cut
		if opensslIsOld() && isKind(err, client.KindIO) &&
			mentions(failure(err), "without close_notify") {
			err = nil // s_server of 1.1.1 cuts the connection
		}
		if err != nil || !bytes.HasPrefix(page, []byte("HTTP/1.0 200 ok")) ||
			!bytes.Contains(page, []byte("</pre>")) ||
			!bytes.Contains(page, []byte("TLSv1.3")) {
			t.Errorf("reading the page of s_server to its end: error %v; the page "+
				"must have a 200, TLSv1.3 and </pre>:\n%s", err, page)
		}
		closeStream(t, e, s)
	})
}
