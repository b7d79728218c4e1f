package conformance

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/session"
)

// An endpoint is one side of a connection. It is our side, or crypto/tls, or the program openssl.
// Our side runs at one of three levels: in process, with a daemon, or with the plugin.
type endpoint interface {
	String() string
	// dial connects to an address and does the handshake.
	dial(t *testing.T, to address, o dialOptions) (stream, error)
	// listen begins to listen on a free port of 127.0.0.1.
	listen(t *testing.T, o listenOptions) listener
}

type address struct {
	host string // the name or address that the certificate must have
	port int
}

type dialOptions struct {
	ca       string // PEM file of trusted certificates; empty: none
	insecure bool   // do not verify
	only     uint16 // the one TLS version to offer; 0: the endpoint's default
}

type listenOptions struct {
	cert *testcert.Cert
	only uint16
}

// A listener accepts one client after another. The end of the test closes it.
type listener interface {
	port() int
	// accept waits for a client and its handshake.
	accept(t *testing.T) (stream, error)
}

// A stream is a connection that has done its handshake. Read returns io.EOF after the peer's
// close_notify. One Read and one Write may run at the same time. The end of the test closes the
// stream.
type stream interface {
	io.ReadWriteCloser // Close sends close_notify
	// peerSubject returns the subject of the peer's certificate in OpenSSL's one-line form. It
	// returns "" if the peer has shown no certificate.
	peerSubject() string
	version() string   // "TLSv1.3"
	closeWrite() error // sends close_notify; Read goes on
	cut()              // ends the TCP connection, without close_notify
	reset()            // breaks the TCP connection (RST)
}

// An ability is something that a test may need, and that only some endpoints can do.
type ability string

const (
	endFirst   ability = "end the connection before the peer does"
	halfClose  ability = "end its own direction and go on reading"
	writeOn    ability = "go on writing after the peer's close_notify"
	cut        ability = "cut the connection without close_notify"
	sendAtOnce ability = "return from a write only when the data has been sent"
	reset      ability = "reset the connection"
	noticeCut  ability = "tell a cut connection from one that ended"
	noticeRST  ability = "tell a reset connection from one that was cut"
	oneVersion ability = "offer one TLS version only"
	takeTLS11  ability = "speak TLS 1.1 with a peer that has no newer version (our side is " +
		"asked to, and must refuse)"
	shakeAhead ability = "do handshakes while nobody accepts"
	many       ability = "serve many clients on one listener"
	tellKind   ability = "tell the kind of an error and its detail, besides its text"
	relative   ability = "pass a relative path on"
	setEnv     ability = "run in an environment that the test sets"
	bareDaemon ability = "have the flags of tlsd, and take a caller's bytes on its socket"
)

type role string

const (
	asClient role = "client"
	asServer role = "server"
	asBoth   role = "client and server"
)

// unable lists what an endpoint cannot do, and why. A test leaves out a pair if one side lacks an
// ability that the test needs. It leaves out no other pair.
var unable = []struct {
	endpoint string
	role     role
	what     ability
	why      string
	old      bool // this row is only for OpenSSL 1.1.1
}{
	{ourName, asBoth, cut, "tls.Close always sends close_notify", false},
	{ourName, asBoth, reset, "tls.Close always sends close_notify", false},
	{ourName, asBoth, oneVersion, "only the oldest version can be set (min-version)", false},
	{"in process", asBoth, bareDaemon, "there is no daemon", false},
	{"plugin", asBoth, bareDaemon, "the level daemon has these tests; test/plugin tests " +
		"the plugin with bad parameters", false},
	{"in process", asBoth, setEnv, "its environment is that of all tests", false},
	{"daemon", asBoth, relative, "rpc/client makes paths absolute; TestBadParameters sends " +
		"a relative path to the daemon", false},
	{"plugin", asBoth, sendAtOnce, "its Writes return before, except in the strict mode",
		false},
	{"plugin", asBoth, tellKind, "its interface gives the text of an error only: tls_LastError",
		false},
	{"plugin", asBoth, relative, "it makes paths absolute, from its host's working directory",
		false},
	{"crypto/tls", asBoth, noticeCut, "a cut between two records is io.EOF to it", false},
	{"openssl", asServer, endFirst, "s_server closes the socket without close_notify at its " +
		"end of input", false},
	{"openssl", asBoth, halfClose, "s_client and s_server leave when their input ends", false},
	{"openssl", asBoth, writeOn, "s_client and s_server leave when the peer has ended", false},
	{"openssl", asServer, noticeCut, "s_server prints the same after a cut and an end", false},
	{"openssl", asClient, noticeCut, "s_client of 1.1.1 prints the same after a cut and an " +
		"end", true},
	{"openssl", asBoth, sendAtOnce, "its input is a pipe", false},
	{"openssl", asBoth, reset, "a killed process closes its socket in an orderly way", false},
	{"openssl", asBoth, noticeRST, "with -brief and -quiet they do not print the errno", false},
	{"openssl", asBoth, takeTLS11, "its default level of security does not allow it", false},
	{"crypto/tls", asServer, shakeAhead, "its handshake comes after accept", false},
	{"openssl", asServer, many, "the tests give s_server one client: all of them would share " +
		"its output", false},
}

// In the table unable, ourName means our side at all levels. Other names are those that String
// returns.
const ourName = "ours"

// The result of cannot is the reason why an endpoint lacks an ability. If the endpoint has the
// ability, the result is "".
func cannot(e endpoint, r role, a ability) string {
	for _, u := range unable {
		named := u.endpoint == e.String() || u.endpoint == ourName && isOurs(e)
		if named && u.what == a && (u.role == r || u.role == asBoth) &&
			(!u.old || opensslIsOld()) {
			return u.why
		}
	}
	return ""
}

// needs says what a test needs of the two sides.
type needs struct {
	client, server []ability
	strictWrites   bool // our side must be strict (see us.strict)
}

// leftOut says why a pair cannot run the test, or returns "".
func (n needs) leftOut(cl, sv endpoint) string {
	for _, a := range n.client {
		if why := cannot(cl, asClient, a); why != "" {
			return fmt.Sprintf("%s as the client cannot %s: %s", cl, a, why)
		}
	}
	for _, a := range n.server {
		if why := cannot(sv, asServer, a); why != "" {
			return fmt.Sprintf("%s as the server cannot %s: %s", sv, a, why)
		}
	}
	return ""
}

// overPairs runs body for all pairs of endpoints at the same time. A pair with our side runs at
// each of our levels. A pair without it runs once.
func overPairs(t *testing.T, n needs, body func(t *testing.T, cl, sv endpoint)) {
	t.Helper()
	run := func(cl, sv endpoint) bool {
		name := cl.String() + "→" + sv.String()
		if why := n.leftOut(cl, sv); why != "" {
			t.Logf("left out: %s: %s", name, why)
			return false
		}
		return t.Run(name, func(t *testing.T) {
			t.Parallel()
			body(t, cl, sv)
		})
	}
	others := []endpoint{goEndpoint{}, opensslEndpoint{}}
	for _, l := range levels(t, session.Timeouts{}) {
		if n.strictWrites {
			l = l.strict()
		}
		ran := run(l, l)
		for _, other := range others {
			as, bs := run(l, other), run(other, l)
			ran = ran || as || bs
		}
		if !ran {
			t.Errorf("%s: all pairs with our side were left out; nothing is tested", l)
		}
	}
	if level != "" && level != daemonLevel {
		// The suite runs for one level, which is not the daemon. Only the run for the
		// daemon has the pairs without our side.
		return
	}
	for _, cl := range others {
		for _, sv := range others {
			run(cl, sv)
		}
	}
}

// connect makes a connection between the endpoints of a pair. If that fails, the test ends.
func connect(t *testing.T, w *world, cl, sv endpoint, do dialOptions,
	lo listenOptions) (c, s stream) {
	t.Helper()
	if lo.cert == nil {
		lo.cert = w.cert
	}
	if do.ca == "" {
		do.ca = w.ca.File
	}
	l := sv.listen(t, lo)
	accepted := accepting(t, l)
	c, err := cl.dial(t, address{"localhost", l.port()}, do)
	if err != nil {
		t.Fatalf("%s as the client cannot connect: %v", cl, err)
	}
	a := <-accepted
	if a.err != nil {
		t.Fatalf("%s as the server cannot accept the client: %v", sv, a.err)
	}
	return c, a.stream
}

type accepted struct {
	stream stream
	err    error
}

// accepting accepts one client on a goroutine.
func accepting(t *testing.T, l listener) <-chan accepted {
	t.Helper()
	ch := make(chan accepted, 1)
	go func() {
		s, err := l.accept(t)
		ch <- accepted{s, err}
	}()
	return ch
}

// send writes a whole text. expect reads as many bytes, which must be the text. If this fails, the
// failure's text names the endpoint (the parameter who).
func send(t *testing.T, who endpoint, s stream, text string) {
	t.Helper()
	if n, err := s.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("%s writes %d of %d bytes: %v", who, n, len(text), err)
	}
}

func expect(t *testing.T, who endpoint, s stream, text string) {
	t.Helper()
	buf := make([]byte, len(text))
	if n, err := io.ReadFull(s, buf); err != nil || string(buf) != text {
		t.Fatalf("%s reads %q, %v; want %q", who, buf[:n], err, text)
	}
}

// expectEnd checks that two Reads report the clean end of the data (io.EOF).
func expectEnd(t *testing.T, who endpoint, s stream) {
	t.Helper()
	for range 2 {
		if n, err := s.Read(make([]byte, 100)); n != 0 || !errors.Is(err, io.EOF) {
			t.Fatalf("%s reads %d bytes, %v; want the end", who, n, err)
		}
	}
}

// greet sends a text each way, and checks that it arrives.
func greet(t *testing.T, cl, sv endpoint, c, s stream) {
	t.Helper()
	send(t, cl, c, marker+" request")
	expect(t, sv, s, marker+" request")
	send(t, sv, s, marker+" reply")
	expect(t, cl, c, marker+" reply")
}

func closeStream(t *testing.T, who endpoint, s stream) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("%s cannot close the connection: %v", who, err)
	}
}

// versionOf is OpenSSL's name of a TLS version.
func versionOf(v uint16) string {
	switch v {
	case tls.VersionTLS10:
		return "TLSv1"
	case tls.VersionTLS11:
		return "TLSv1.1"
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return fmt.Sprintf("version %04x", v)
}
