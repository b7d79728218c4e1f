package conformance

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"tlsd/internal/ours"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
	"tlsd/session"
)

// If the network or the server is bad, the call fails within its timeout. The error has the right
// kind and errno.

// The timeouts of our side in these tests. They also limit the handshakes with good peers, so they
// must be long enough for a busy machine.
const (
	connectBound   = 6 * time.Second
	handshakeBound = 5 * time.Second
)

var networkBounds = session.Timeouts{Connect: connectBound, Handshake: handshakeBound}

// If NewClient cannot connect, it fails with kind connect or timeout, and the error names the
// address. If the text is not a host, it fails with kind params.
func TestBadAddressesToConnectTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dead := testkit.Port(t)
	atEachLevel(t, networkBounds, func(t *testing.T, e us) {
		for _, c := range []struct {
			name  string
			host  string
			port  int
			kinds []client.Kind
			errno string
			says  []string
		}{
			// A resolver may say that there is no such name, or not answer in time.
			{"a name that does not exist", "no-such-host.invalid", 443,
				[]client.Kind{client.KindConnect, client.KindTimeout}, lookUp,
				[]string{"no-such-host.invalid:443"}},
			{"a port on which nobody listens", "127.0.0.1", dead,
				[]client.Kind{client.KindConnect}, "ECONNREFUSED",
				[]string{testkit.Addr(dead), "refused"}},
			{"a name, and a port on which nobody listens", "localhost", dead,
				[]client.Kind{client.KindConnect}, "ECONNREFUSED",
				[]string{fmt.Sprint("localhost:", dead), "refused"}},
			{"a server that does not answer", "127.0.0.1", testkit.Unanswered(t),
				[]client.Kind{client.KindTimeout}, "", []string{"127.0.0.1:",
					connectBound.String()}},
			// A text that is no host is not looked up.
			{"a name with a blank", "local host", 443, []client.Kind{client.KindParams},
				"", []string{"local host"}},
			{"a name that is too long", strings.Repeat("a", 250) + ".test", 443,
				[]client.Kind{client.KindParams}, "", nil},
			{"a label that is too long", strings.Repeat("a", 64) + ".test", 443,
				[]client.Kind{client.KindParams}, "", []string{"aaa.test"}},
			{"an empty label", "a..test", 443, []client.Kind{client.KindParams}, "",
				[]string{"a..test"}},
			{"no IPv4 address", "999.1.1.1", 443, []client.Kind{client.KindParams}, "",
				[]string{"999.1.1.1"}},
			{"half an IPv6 address", "[::1", 443, []client.Kind{client.KindParams}, "",
				[]string{"[::1"}},
			{"a name with its port", "localhost:443", 443,
				[]client.Kind{client.KindParams}, "", []string{"localhost:443"}},
			{"a URL", "https://localhost/", 443, []client.Kind{client.KindParams}, "", []string{"https://localhost/"}},
			{"a name with a line feed", "local\nhost", 443,
				[]client.Kind{client.KindParams}, "", nil},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				p := newTwoSessions(t, e, w)
				begun := time.Now()
				_, err := p.s.NewClient(p.ctx, c.host, c.port)
				took := time.Since(begun)
				w := want{kind: c.kinds[0], op: "tls.NewClient", errno: c.errno,
					says: c.says}
				if len(c.kinds) > 1 && isKind(err, c.kinds[1]) {
					w.kind = c.kinds[1]
				}
				if c.errno == lookUp {
					w.errno = lookUpErrno(t, err)
				}
				p.refused(t, err, w)
				if err != nil && strings.ContainsAny(err.Error(), "\n\r") {
					t.Errorf("the error must be one line, and is %q", err)
				}
				if took > connectBound+testkit.Patience/2 {
					t.Errorf("NewClient has taken %v; its timeout is %v", took,
						connectBound)
				}
				if testing.Verbose() {
					t.Log(err)
				}
			})
		}
	})
}

// If the server answers without TLS, Handshake fails with kind handshake. If the server sends
// nothing, Handshake fails with kind timeout. After that, only tls.Close works on the connection.
func TestBadServers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, networkBounds, func(t *testing.T, e us) {
		for _, c := range []struct {
			name  string
			act   func(*net.TCPConn)
			kind  client.Kind
			errno string
			says  []string
		}{
			{"speaks HTTP", func(c *net.TCPConn) {
				io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n"+
					"Content-Length: 0\r\n\r\n")
				io.Copy(io.Discard, c)
			}, client.KindHandshake, "", []string{"TLS"}},
			{"speaks SMTP", func(c *net.TCPConn) {
				io.WriteString(c, "220 mail.test ESMTP\r\n")
				io.Copy(io.Discard, c)
			}, client.KindHandshake, "", []string{"TLS"}},
			{"sends zeros", func(c *net.TCPConn) {
				c.Write(make([]byte, 1000))
				io.Copy(io.Discard, c)
			}, client.KindHandshake, "", nil},
			// The server reads to the end, because the kernel resets a connection that
			// is closed while data is unread.
			{"hangs up at once",
				func(c *net.TCPConn) { c.CloseWrite(); io.Copy(io.Discard, c) },
				client.KindHandshake, "", []string{"closed"}},
			{"hangs up after the first message", func(c *net.TCPConn) {
				io.ReadFull(c, make([]byte, 100))
				c.CloseWrite()
				io.Copy(io.Discard, c)
			}, client.KindHandshake, "", []string{"closed"}},
			{"resets", func(c *net.TCPConn) {
				io.ReadFull(c, make([]byte, 100))
				c.SetLinger(0)
			}, client.KindHandshake, "ECONNRESET", []string{"reset"}},
			{"refuses by an alert", func(c *net.TCPConn) {
				// handshake_failure, RFC 8446 section 6
				c.Write([]byte{21, 3, 3, 0, 2, 2, 40})
				io.Copy(io.Discard, c)
			}, client.KindHandshake, "", []string{"alert", "handshake_failure"}},
			{"says nothing", func(c *net.TCPConn) { io.Copy(io.Discard, c) },
				client.KindTimeout, "", []string{handshakeBound.String()}},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				p := newTwoSessions(t, e, w)
				l, err := net.Listen("tcp", "127.0.0.1:0")
				testkit.Must(t, err)
				acted := make(chan bool)
				go func() {
					defer close(acted)
					conn, err := l.Accept()
					if err != nil {
						return
					}
					defer conn.Close()
					conn.SetDeadline(time.Now().Add(testkit.Patience))
					c.act(conn.(*net.TCPConn))
				}()
				h, err := p.s.NewClient(p.ctx, "127.0.0.1",
					l.Addr().(*net.TCPAddr).Port)
				testkit.Must(t, err)
				begun := time.Now()
				err = p.s.Handshake(p.ctx, h)
				took := time.Since(begun)
				p.refused(t, err, want{kind: c.kind, op: "tls.Handshake",
					handle: int(h), errno: c.errno, says: c.says})
				if c.kind == client.KindTimeout && (took < handshakeBound ||
					took > handshakeBound+testkit.Patience/2) {
					t.Errorf("Handshake has taken %v; its timeout is %v", took,
						handshakeBound)
				}
				if err := p.s.Handshake(p.ctx, h); !isKind(err, client.KindState) {
					t.Errorf("a second tls.Handshake: %v; want kind state", err)
				}
				testkit.Must(t, p.s.CloseConn(p.ctx, h))
				l.Close()
				<-acted
				if testing.Verbose() {
					t.Log(err)
				}
			})
		}
	})
}

// If tlsd cannot listen on an address, Accept fails with kind connect. The same context can then
// listen on another address.
func TestBadAddressesToListenOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, networkBounds, func(t *testing.T, e us) {
		p := newTwoSessions(t, e, w)
		taken := goEndpoint{}.listen(t, listenOptions{cert: w.cert}).port()
		other := e.server(t, listenOptions{cert: w.cert}).Port
		h, err := p.s.NewServerContext(p.ctx, w.cert.CertFile, w.cert.KeyFile)
		testkit.Must(t, err)
		const noHost = "not a host" // the error has kind params, and no errno
		for _, c := range []struct {
			name  string
			host  string
			port  int
			errno string
		}{
			{"of another machine", "192.0.2.1", 4433, "EADDRNOTAVAIL"},
			{"that somebody else uses", "127.0.0.1", taken, "EADDRINUSE"},
			{"that another session uses", "127.0.0.1", other, "EADDRINUSE"},
			{"with a name that does not exist", "no-such-host.invalid", 4433, lookUp},
			{"that is none", "127.0.0.1.1", 4433, noHost},
		} {
			t.Run(c.name, func(t *testing.T) {
				_, err := p.s.Accept(p.ctx, h, c.host, c.port)
				w := want{kind: client.KindConnect, op: "tls.Accept",
					handle: int(h), errno: c.errno,
					says: []string{fmt.Sprintf("%s:%d", c.host, c.port)}}
				switch {
				case c.errno == noHost:
					w.kind, w.errno = client.KindParams, ""
				case c.errno == lookUp:
					w.errno = lookUpErrno(t, err)
					if isKind(err, client.KindTimeout) {
						// The resolver does not answer.
						w.kind = client.KindTimeout
					}
				}
				p.refused(t, err, w)
				if testing.Verbose() {
					t.Log(err)
				}
			})
		}
		t.Run("and then one that is free", func(t *testing.T) {
			l := ourListener{&ours.Listener{TB: t, Ctx: p.ctx, S: p.s, H: h,
				Port: testkit.Port(t)}}
			accepted := accepting(t, l)
			testd.AwaitListener(t, l.Port)
			c, err := goEndpoint{}.dial(t, address{"localhost", l.Port},
				dialOptions{ca: w.ca.File})
			testkit.Must(t, err)
			a := <-accepted
			testkit.Must(t, a.err)
			greet(t, goEndpoint{}, e, c, a.stream)
		})
	})
}

// lookUp stands for the errno of any failed look-up of a name, because the errno depends on the
// resolver.
const lookUp = "EAI_*"

// lookUpErrno returns the errno that the error of a failed look-up must have. It may be any errno
// EAI_*. If the kind is timeout, it may be empty. If the errno of err is right, lookUpErrno returns
// it. If not, lookUpErrno returns lookUp, so that the check fails.
func lookUpErrno(t *testing.T, err error) string {
	t.Helper()
	e := failure(err)
	if e == nil {
		return lookUp
	}
	if name := e.Data.Errno; strings.HasPrefix(name, "EAI_") ||
		name == "" && isKind(e, client.KindTimeout) {
		return name
	}
	return lookUp
}
