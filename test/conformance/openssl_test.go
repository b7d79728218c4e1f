package conformance

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// opensslEndpoint is OpenSSL's command line: s_client and s_server. Their standard input and output
// are the payload. With -brief they describe the connection on standard error.
type opensslEndpoint struct{}

func (opensslEndpoint) String() string { return "openssl" }

var onlyFlag = map[uint16]string{tls.VersionTLS11: "-tls1_1", tls.VersionTLS12: "-tls1_2",
	tls.VersionTLS13: "-tls1_3"}

func (opensslEndpoint) dial(t *testing.T, to address, o dialOptions) (stream, error) {
	// -nocommands: every letter of the input is payload. -no_ign_eof: the end of the input ends
	// the connection.
	args := []string{"s_client", "-connect", testkit.Addr(to.port), "-brief", "-nocommands",
		"-no_ign_eof"}
	if o.ca != "" {
		args = append(args, "-CAfile", o.ca)
	} else {
		args = append(args, "-no-CAfile")
	}
	args = append(args, "-no-CApath")
	if !opensslIsOld() {
		args = append(args, "-no-CAstore") // an option since 3.0
	}
	isAddress := net.ParseIP(to.host) != nil
	if isAddress {
		args = append(args, "-noservername")
	} else {
		args = append(args, "-servername", to.host)
	}
	switch {
	case o.insecure:
	case isAddress:
		args = append(args, "-verify_return_error", "-verify_ip", to.host)
	default:
		args = append(args, "-verify_return_error", "-verify_hostname", to.host)
	}
	return startOpenssl(t, append(args, version(o.only)...)).established()
}

// opensslIsOld says whether the command line is of 1.1.1, as on Debian 11 and RHEL 8.
var opensslIsOld = sync.OnceValue(func() bool {
	out, _ := exec.Command("openssl", "version").Output() // no openssl: dial fails later
	return strings.HasPrefix(string(out), "OpenSSL 1.")
})

func version(only uint16) []string {
	switch {
	case only == 0:
		return nil
	case only < tls.VersionTLS12: // the default level of security forbids old versions
		return []string{onlyFlag[only], "-cipher", "DEFAULT:@SECLEVEL=0"}
	}
	return []string{onlyFlag[only]}
}

func (opensslEndpoint) listen(t *testing.T, o listenOptions) listener {
	t.Helper()
	port := testkit.Port(t)
	args := []string{"s_server", "-accept", testkit.Addr(port), "-naccept", "1", "-brief",
		"-cert", o.cert.CertFile, "-cert_chain", o.cert.CertFile, "-key", o.cert.KeyFile}
	p := startOpenssl(t, append(args, version(o.only)...))
	testd.AwaitListener(t, port)
	return &opensslListener{p, port}
}

type opensslListener struct {
	*openssl
	p int
}

func (l *opensslListener) port() int                           { return l.p }
func (l *opensslListener) accept(t *testing.T) (stream, error) { return l.established() }

// openssl is a running s_client or s_server.
type openssl struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  io.ReadCloser
	told chan struct{} // closed when standard error has described the connection, or has ended
	done chan struct{} // closed when the process has ended

	mu   sync.Mutex // guards text
	text strings.Builder
}

func startOpenssl(t *testing.T, args []string) *openssl {
	t.Helper()
	p := &openssl{cmd: exec.Command("openssl", args...), told: make(chan struct{}),
		done: make(chan struct{})}
	var stderr io.ReadCloser
	var errs [4]error
	p.in, errs[0] = p.cmd.StdinPipe()
	p.out, errs[1] = p.cmd.StdoutPipe()
	stderr, errs[2] = p.cmd.StderrPipe()
	errs[3] = testd.Spawn(p.cmd, func() {
		defer close(p.done)
		p.listen(stderr)
		// Not cmd.Wait, because it closes the output, which the test may not have read yet.
		p.cmd.Process.Wait()
	})
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatalf("openssl %s cannot be started: %v", args[0], err)
	}
	timer := time.AfterFunc(testkit.Patience, func() { p.cmd.Process.Kill() })
	t.Cleanup(func() {
		timer.Stop()
		p.cmd.Process.Kill()
		<-p.done
		p.in.Close()
		p.out.Close()
		stderr.Close()
	})
	return p
}

// listen reads the standard error of the process to its end.
func (p *openssl) listen(stderr io.Reader) {
	told := sync.OnceFunc(func() { close(p.told) })
	defer told()
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		p.mu.Lock()
		p.text.WriteString(lines.Text() + "\n")
		p.mu.Unlock()
		// The line "Peer certificate: CN = …" or "No peer certificate" is the last one that
		// is needed.
		if strings.Contains(lines.Text(), "eer certificate") {
			told()
		}
	}
}

func (p *openssl) stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// established waits for the handshake.
func (p *openssl) established() (stream, error) {
	<-p.told
	if p.version() == "" {
		<-p.done
		return nil, &opensslError{p.stderr()}
	}
	return p, nil
}

type opensslError struct{ text string }

func (e *opensslError) Error() string { return "openssl: " + e.text }

func (p *openssl) Read(b []byte) (int, error) {
	n, err := p.out.Read(b)
	if err == io.EOF {
		<-p.done
		if strings.Contains(p.stderr(), "unexpected eof") {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

func (p *openssl) Write(b []byte) (int, error) { return p.in.Write(b) }

// Close ends the input, and waits until the process has ended. The end of its input makes s_client
// end the connection. s_server ends only after its peer has ended the connection.
func (p *openssl) Close() error {
	p.in.Close()
	select {
	case <-p.done:
		return nil
	case <-time.After(testkit.Patience):
		return fmt.Errorf("openssl has not ended: %s", p.stderr())
	}
}

func (p *openssl) cut() {
	p.cmd.Process.Kill()
	<-p.done
}

func (p *openssl) closeWrite() error { return errors.New("not possible") }
func (p *openssl) reset()            { panic("openssl cannot reset a connection") }

var (
	opensslVersion = regexp.MustCompile(`(?m)^Protocol version: (.*)$`)
	opensslSubject = regexp.MustCompile(`(?m)^Peer certificate: CN ?= ?(.*)$`)
)

func (p *openssl) version() string { return p.find(opensslVersion) }

func (p *openssl) peerSubject() string {
	if cn := p.find(opensslSubject); cn != "" {
		return "/CN=" + cn
	}
	return ""
}

func (p *openssl) find(re *regexp.Regexp) string {
	if m := re.FindStringSubmatch(p.stderr()); m != nil {
		return m[1]
	}
	return ""
}
