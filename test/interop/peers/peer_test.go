package peers

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tlsd/internal/ours"
	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// A peer is a program that speaks TLS and was not written here.
type peer interface {
	String() string
	tool() string // the program that must be installed; empty: none
	// client connects to a port of this machine.
	client(t *testing.T, port int, s setting) talk
	// server listens on a port for one connection.
	server(t *testing.T, port int, s setting) talk
}

// A setting says how a peer must behave.
type setting struct {
	version uint16
	ca      string         // the CA that the peer trusts
	cert    *testcert.Cert // the certificate of a server
	group   string         // the only group of a server: "P-384"; "": the server's default
	// what a server asks of its clients: "", "optional" or "required" certificates
	ask     string
	most    int  // the most bytes that the peer writes at once; 0: the peer's default
	command bool // the test will send the peer a command (see commander)
	// a client connects twice, and resumes the first TLS session on the second connection
	resume bool
}

func (s setting) name() string {
	if s.version == tls.VersionTLS12 {
		return "1.2"
	}
	return "1.3"
}

// A talk is a peer's end of a connection. The test reads and writes the talk after our side has
// done its handshake.
type talk interface {
	io.ReadWriter
	closeWrite() error
	end() error // ends the connection, and waits until the peer's program has ended
}

// An echo is a talk whose program sends all data back. The test reads and writes only our side.
type echo interface{ echoes() }

// A command makes a peer do something that it does not do by itself.
type command string

const (
	rekey       command = "KeyUpdate"
	renegotiate command = "renegotiation"
)

// A commander is a talk that takes commands. After a command the peer's output may have more than
// the data that the peer has received.
type commander interface {
	order(command, *ours.Stream) error
}

// openssl is OpenSSL's command line.
type openssl struct{}

func (openssl) String() string { return "openssl" }
func (openssl) tool() string   { return "openssl" }

var opensslVersions = map[uint16]string{tls.VersionTLS12: "-tls1_2", tls.VersionTLS13: "-tls1_3"}

func (openssl) client(t *testing.T, port int, s setting) talk {
	args := []string{"s_client", "-connect", testkit.Addr(port), "-brief", "-no_ign_eof",
		opensslVersions[s.version], "-servername", "localhost", "-CAfile", s.ca,
		"-verify_return_error", "-verify_hostname", "localhost"}
	if !s.command {
		args = append(args, "-nocommands")
	}
	if s.resume {
		file := filepath.Join(t.TempDir(), "session")
		visit(t, start(t, "openssl", append(args, "-sess_out", file)...))
		args = append(args, "-sess_in", file)
	}
	return opensslTalk{start(t, "openssl", args...)}
}

// visit makes the first connection of a client that connects twice. The client sends something, and
// reads to the end of the connection.
func visit(t *testing.T, p *process) {
	t.Helper()
	_, err := p.Write([]byte("ticket"))
	testkit.Must(t, err)
	_, err = io.Copy(io.Discard, p)
	testkit.Must(t, err)
	testkit.Must(t, p.end())
}

func (openssl) server(t *testing.T, port int, s setting) talk {
	args := []string{"s_server", "-accept", testkit.Addr(port), "-naccept", "1",
		opensslVersions[s.version], "-cert", s.cert.CertFile,
		"-cert_chain", s.cert.CertFile, "-key", s.cert.KeyFile, "-CAfile", s.ca}
	if !s.command {
		args = append(args, "-brief")
	}
	if s.group != "" {
		args = append(args, "-groups", s.group)
	}
	switch s.ask {
	case "optional":
		args = append(args, "-verify", "3")
	case "required":
		args = append(args, "-Verify", "3")
	}
	p := opensslTalk{start(t, "openssl", args...)}
	if s.command { // without -brief the output of s_server describes the connection, too
		return noisyTalk{p, &payload{from: p}}
	}
	return p
}

type opensslTalk struct{ *process }

func (p opensslTalk) order(c command, _ *ours.Stream) error {
	// The letter K makes the program send a KeyUpdate that asks the other side for a KeyUpdate.
	letter := map[command]string{rekey: "K\n", renegotiate: "R\n"}[c]
	_, err := p.in.Write([]byte(letter))
	return err
}

// stdin returns the input of the program. If each piece is written after the program has sent the
// piece before it, each piece becomes a record.
func (p opensslTalk) stdin() io.Writer { return p.in }

// A noisyTalk is a talk of a program whose output has more than the received data.
type noisyTalk struct {
	opensslTalk
	payload *payload
}

func (p noisyTalk) Read(b []byte) (int, error) { return p.payload.Read(b) }

// A payload reads only the lines of digits from the output of a program (see the function lines).
type payload struct {
	from io.Reader
	line []byte // the beginning of a line whose end has not come
	have []byte // lines of digits that Read has not returned yet
}

func (p *payload) Read(b []byte) (int, error) {
	buf := make([]byte, 1<<16)
	for len(p.have) == 0 {
		n, err := p.from.Read(buf)
		p.line = append(p.line, buf[:n]...)
		for {
			line, rest, whole := bytes.Cut(p.line, []byte("\n"))
			if !whole {
				break
			}
			if len(line) == 63 && len(bytes.Trim(line, "0123456789")) == 0 {
				p.have = append(append(p.have, line...), '\n')
			}
			p.line = rest
		}
		if err != nil && len(p.have) == 0 {
			return 0, err
		}
	}
	n := copy(b, p.have)
	p.have = p.have[n:]
	return n, nil
}

// gnuTLS is gnutls-cli and gnutls-serv. gnutls-serv has no option for its address, so it listens on
// all addresses of the machine during a test.
type gnuTLS struct{}

func (gnuTLS) String() string { return "GnuTLS" }
func (gnuTLS) tool() string   { return "gnutls-cli" }

func (gnuTLS) priority(s setting) string {
	p := "--priority=NORMAL:-VERS-ALL:+VERS-TLS" + s.name()
	if s.group == "P-384" {
		p += ":-GROUP-ALL:+GROUP-SECP384R1"
	}
	return p
}

func (g gnuTLS) client(t *testing.T, port int, s setting) talk {
	args := []string{"--port=" + strconv.Itoa(port), "--sni-hostname=localhost",
		"--verify-hostname=localhost",
		"--x509cafile=" + s.ca, "--logfile=/dev/stderr", g.priority(s)}
	if s.command {
		args = append(args, "--inline-commands")
	}
	if s.resume {
		args = append(args, "--resume")
		if s.version == tls.VersionTLS13 {
			args = append(args, "--waitresumption")
		}
	}
	return gnuTLSTalk{start(t, "gnutls-cli", append(args, "127.0.0.1")...)}
}

func (g gnuTLS) server(t *testing.T, port int, s setting) talk {
	args := []string{"--echo", "--quiet", "--port=" + strconv.Itoa(port),
		"--x509certfile=" + s.cert.CertFile,
		"--x509keyfile=" + s.cert.KeyFile, "--x509cafile=" + s.ca, g.priority(s)}
	switch s.ask {
	case "":
		args = append(args, "--disable-client-cert")
	case "required":
		args = append(args, "--require-client-cert")
	}
	p := start(t, "gnutls-serv", args...)
	go io.Copy(io.Discard, p.out)
	return gnuTLSServer{p}
}

type gnuTLSTalk struct{ *process }

func (p gnuTLSTalk) order(c command, _ *ours.Stream) error {
	line := map[command]string{rekey: "^rekey^\n", renegotiate: "^renegotiate^\n"}[c]
	_, err := p.in.Write([]byte(line))
	return err
}

func (p gnuTLSTalk) stdin() io.Writer { return p.in }

type gnuTLSServer struct{ *process }

func (gnuTLSServer) echoes() {}

// order sends the command over the connection.
func (p gnuTLSServer) order(c command, us *ours.Stream) error {
	if c != renegotiate {
		return fmt.Errorf("gnutls-serv has no command for %s", c)
	}
	_, err := us.Write([]byte("**REHANDSHAKE**\n"))
	return err
}

// end kills the server, because it does not end with its connection.
func (p gnuTLSServer) end() error {
	p.cmd.Process.Kill()
	return p.process.end()
}

// script is a program of ours in another language. It uses the TLS library of that language.
type script struct{ language, program, file string }

var (
	python = script{"Python", "python3", "testdata/peer.py"}
	node   = script{"Node", "node", "testdata/peer.js"}
)

func (p script) String() string { return p.language }
func (p script) tool() string   { return p.program }

func (p script) start(t *testing.T, role string, port int, s setting, more ...string) talk {
	t.Helper()
	args := append([]string{p.file, role, strconv.Itoa(port), "version=" + s.name(),
		"ca=" + s.ca}, more...)
	if s.most > 0 {
		args = append(args, "most="+strconv.Itoa(s.most))
	}
	if s.command {
		args = append(args, "command=1")
	}
	return scriptTalk{start(t, p.program, args...)}
}

func (p script) client(t *testing.T, port int, s setting) talk {
	if s.resume {
		return p.start(t, "client", port, s, "resume=1")
	}
	return p.start(t, "client", port, s)
}

func (p script) server(t *testing.T, port int, s setting) talk {
	more := []string{"cert=" + s.cert.CertFile, "key=" + s.cert.KeyFile}
	if s.group != "" {
		more = append(more, "group="+map[string]string{"P-384": "secp384r1"}[s.group])
	}
	if s.ask != "" {
		more = append(more, "ask="+s.ask)
	}
	return p.start(t, "server", port, s, more...)
}

type scriptTalk struct{ *process }

func (p scriptTalk) order(command, *ours.Stream) error {
	_, err := p.in.Write([]byte("R\n"))
	return err
}

// end fails if the script does not report that its connection has ended cleanly.
func (p scriptTalk) end() error {
	err := p.process.end()
	if err == nil && !strings.Contains(p.said(), "ended: clean") {
		err = fmt.Errorf("%s reports no clean end, but %s", p.name, p.said())
	}
	return err
}

// everyPeer lists the peers of TestPeers.
var everyPeer = []peer{openssl{}, cryptoTLS{}, gnuTLS{}, python, node, curl{}}

// await waits until the server listens. crypto/tls listens at once.
func await(t *testing.T, p peer, port int) {
	t.Helper()
	if !slices.Contains([]string{"crypto/tls"}, p.String()) {
		testd.AwaitListener(t, port)
	}
}
