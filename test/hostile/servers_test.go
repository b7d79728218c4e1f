package hostile

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// Bad servers of a session that connects.

// A patient is a session that meets bad servers. Its connection to a good server must go on,
// whatever a bad server does.
type patient struct {
	t     *testing.T
	c     *client.Client
	good  talk
	pid   int
	files int
}

func newPatient(t *testing.T, w *world, flags ...string) *patient {
	t.Helper()
	port, _ := w.echo(t)
	p := &patient{t: t, c: testd.Start(t, flags...).Dial(t)}
	p.good = w.talk(t, p.c, port)
	p.pid = workerOf(t, p.c)
	p.files = len(testkit.OpenFiles(t, p.pid))
	return p
}

// meet connects to a server that runs act. judge gets the phase in which the connection ended
// ("handshake" or "read"), the data that were read, and the error. The error is nil if the server
// has sent close_notify.
func (p *patient) meet(act func(*net.TCPConn), judge func(phase string, data []byte, err error)) {
	p.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(p.t, err)
	defer l.Close()
	var acting sync.WaitGroup
	acting.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(testkit.Patience))
		act(conn.(*net.TCPConn))
	})
	defer acting.Wait()
	ctx := testkit.Bounded(p.t)
	h, err := p.c.NewClient(ctx, "127.0.0.1", l.Addr().(*net.TCPAddr).Port)
	testkit.Must(p.t, err)
	phase, data := "handshake", []byte(nil)
	for err = p.c.Handshake(ctx, h); err == nil; {
		phase = "read"
		var part []byte
		if part, err = p.c.Read(ctx, h, 1<<20); err == nil && len(part) == 0 {
			break
		}
		data = append(data, part...)
	}
	judge(phase, data, err)
	testkit.Must(p.t, p.c.CloseConn(ctx, h))
}

// well checks that the connection to the good server works, and that no descriptor is left over.
func (p *patient) well() {
	p.t.Helper()
	p.good.works(p.t)
	settled(p.t, p.pid, p.files)
}

// kinds checks that err has one of the kinds in want. what says which call returned err.
func kinds(t *testing.T, what string, err error, want ...client.Kind) {
	t.Helper()
	var e *client.Error
	if !errors.As(err, &e) || !slices.Contains(want, e.Kind) {
		t.Errorf("%s: the call returns %v (%+v); want an error of a kind in %v", what, err,
			e, want)
	}
}

// If a server answers the ClientHello with nonsense, the handshake fails with kind handshake.
func TestServersThatAnswerNonsense(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	p := newPatient(t, w, "--handshake-timeout=1m")
	// serverHello makes a ServerHello (RFC 8446, section 4.1.3).
	serverHello := func(version uint16, suite uint16, extensions []byte) []byte {
		body := append([]byte{byte(version >> 8), byte(version)},
			randomBytes(random, 32)...)
		body = append(body, 0, byte(suite>>8), byte(suite), 0, byte(len(extensions)>>8),
			byte(len(extensions)))
		body = append(body, extensions...)
		return record(22, append([]byte{2, 0, byte(len(body) >> 8), byte(len(body))},
			body...))
	}
	type answer struct {
		name string
		text []byte
	}
	answers := []answer{
		{"SSL 3", serverHello(0x0300, 0x1301, nil)},
		{"a version of the future", serverHello(0x0305, 0x1301, []byte{0, 43, 0, 2, 3, 5})},
		{"a suite that was not offered",
			serverHello(0x0303, 0x0000, []byte{0, 43, 0, 2, 3, 4})},
		{"no key", serverHello(0x0303, 0x1301, []byte{0, 43, 0, 2, 3, 4})},
		{"extensions longer than the message",
			serverHello(0x0303, 0x1301, []byte{0, 43, 0xff, 0xff, 3, 4})},
		{"an extension that was not asked for",
			serverHello(0x0303, 0x1301, []byte{0, 43, 0, 2, 3, 4, 0x40, 0, 0, 0})},
		{"a message that says it is huge", append(record(22, []byte{2, 0xff, 0xff, 0xff}),
			record(22, make([]byte, 16000))...)},
		{"a Certificate first", record(22, []byte{11, 0, 0, 3, 0, 0, 0})},
		{"a client's first message", clientHello(t)},
		{"empty records", bytes.Repeat(record(22, nil), 10000)},
		{"warnings", bytes.Repeat(record(21, []byte{1, 90}), 10000)},
		{"close_notify", record(21, []byte{1, 0})},
		{"data", record(23, []byte("hello"))},
		{"a record too long", record(22, make([]byte, 16384+2049))},
	}
	for range 30 {
		answers = append(answers,
			answer{"a random handshake message",
				record(22, append([]byte{byte(random.IntN(25)), 0, 4, 0},
					randomBytes(random, 1024)...))})
		answers = append(answers, answer{"garbage", randomBytes(random, 2000)})
	}
	for _, a := range answers {
		p.meet(func(c *net.TCPConn) {
			if _, err := io.ReadFull(c, make([]byte, 100)); err != nil {
				t.Errorf("%s: no ClientHello has come: %v", a.name, err)
			}
			// The client may refuse the answer before it has read all of it.
			if _, err := c.Write(a.text); err != nil && !isReset(err) {
				t.Errorf("%s: the answer cannot be sent: %v", a.name, err)
			}
			c.CloseWrite()
			io.Copy(io.Discard, c)
		}, func(phase string, _ []byte, err error) {
			kinds(t, a.name+", in the "+phase, err, client.KindHandshake)
		})
	}
	p.well()
}

// reply is the text that servers send after the handshake.
const reply = "a reply of some length"

// If a connection is cut at any byte of the server's output, the call fails: before the end of the
// handshake with kind handshake, and afterwards with kind io. Read reports the end of the data only
// if the whole output has come.
func TestServersThatAreCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			p := newPatient(t, w)
			server := func(conn net.Conn) {
				s := tls.Server(conn,
					&tls.Config{Certificates: []tls.Certificate{w.cert.TLS()},
						MaxVersion: version})
				if _, err := io.WriteString(s, reply); err == nil {
					s.CloseWrite()
				}
				io.Copy(io.Discard, conn)
			}
			whole, done := 0, false
			for at, step := 0, 0; !done; at += step {
				// the steps differ, so that records are cut at different bytes
				step = 1 + at%53
				for how, end := range map[string]func(*net.TCPConn){
					"FIN": func(c *net.TCPConn) { c.CloseWrite() },
					"RST": reset} {
					p.meet(func(c *net.TCPConn) {
						near, far := net.Pipe()
						near.SetDeadline(time.Now().Add(testkit.Patience))
						var both sync.WaitGroup
						both.Go(func() { server(far); far.Close() })
						first := make([]byte, 1)
						// This byte shows that the client is connected.
						io.ReadFull(c, first)
						both.Go(func() {
							io.Copy(near, io.MultiReader(
								bytes.NewReader(first),
								c))
							near.Close()
						})
						// If fewer bytes come, they are the whole output.
						if n, _ := io.CopyN(c, near,
							int64(at)); int(n) < at {
							whole = int(n)
						}
						end(c)
						if how == "FIN" {
							io.Copy(io.Discard, c)
						}
						c.Close()
						near.Close()
						both.Wait()
					}, func(phase string, data []byte, err error) {
						what := fmt.Sprintf("%s after %d bytes, in the %s",
							how, at, phase)
						switch {
						case err == nil && string(data) == reply:
							// the whole output had come before the cut
							done = done || how == "FIN"
						case err == nil:
							t.Errorf("%s: Read reports the end after "+
								"%q; want an error", what, data)
						case phase == "handshake":
							kinds(t, what, err, client.KindHandshake)
						default:
							kinds(t, what, err, client.KindIO)
						}
					})
					if t.Failed() {
						return
					}
				}
				if at > 100000 {
					t.Fatalf("the server's output was cut after %d bytes, and "+
						"was still not whole", at)
				}
			}
			t.Logf("a server that is not cut sends %d bytes", whole)
			p.well()
		})
	}
}

// A handshake with a slow server succeeds within --handshake-timeout. If the server needs longer,
// the handshake fails with kind timeout.
func TestServersThatDrip(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		name  string
		bound string
		pause time.Duration // after each byte that the server sends
		want  client.Kind   // "": success
	}{
		{"within the bound", "2m", 0, ""},
		// the server sends more than 800 bytes, which takes more than 16 s
		{"over it", "4s", 20 * time.Millisecond, client.KindTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t, w, "--handshake-timeout="+c.bound)
			var took time.Duration
			begin := time.Now()
			p.meet(func(conn *net.TCPConn) {
				near, far := net.Pipe()
				near.SetDeadline(time.Now().Add(testkit.Patience))
				var both sync.WaitGroup
				both.Go(func() {
					cert := w.cert.TLS()
					conf := &tls.Config{Certificates: []tls.Certificate{cert}}
					s := tls.Server(far, conf)
					if _, err := io.WriteString(s, reply); err == nil {
						s.CloseWrite()
					}
					io.Copy(io.Discard, far)
					far.Close()
				})
				both.Go(func() { io.Copy(near, conn); near.Close() })
				conn.SetNoDelay(true)
				one := make([]byte, 1)
				for {
					if _, err := near.Read(one); err != nil {
						break
					}
					if _, err := conn.Write(one); err != nil {
						break
					}
					time.Sleep(c.pause) // the test needs a slow server
				}
				near.Close()
				both.Wait()
			}, func(phase string, data []byte, err error) {
				took = time.Since(begin)
				if c.want == "" && (err != nil || string(data) != reply) {
					t.Errorf("the connection ended in the %s, after the data "+
						"%q, with the error %v; want %q and no error",
						phase, data, err, reply)
				}
				if c.want != "" {
					kinds(t, "in the "+phase, err, c.want)
				}
			})
			t.Logf("the connection took %v", took)
			p.well()
		})
	}
}

// A server may show 10 certificates that are not needed. If it shows 400 or more, the handshake
// fails.
func TestServersWithTooMuchToShow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := newPatient(t, w)
	for _, times := range []int{1, 10, 400, 20000} {
		shown := w.cert.TLS()
		shown.Certificate = slices.Clone(shown.Certificate)
		for range times {
			shown.Certificate = append(shown.Certificate, w.ca.Cert.Raw)
		}
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			what := fmt.Sprintf("%d more certificates, in %s", times,
				tls.VersionName(version))
			p.meet(func(c *net.TCPConn) {
				s := tls.Server(c,
					&tls.Config{Certificates: []tls.Certificate{shown},
						MaxVersion: version})
				if _, err := io.WriteString(s, reply); err == nil {
					s.CloseWrite()
				}
				io.Copy(io.Discard, c)
			}, func(phase string, data []byte, err error) {
				switch {
				case times <= 10 && (err != nil || string(data) != reply):
					t.Errorf("%s: our client has read %q, and ended with the "+
						"error %v; want %q and no error", what, data,
						err, reply)
				case times > 10:
					kinds(t, what+", in the "+phase, err, client.KindHandshake,
						client.KindVerify)
				}
			})
		}
	}
	p.well()
}

// If a server turns bad after the handshake, reading fails with kind io. Data that the server had
// sent before is not lost.
func TestServersThatTurnBad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := newPatient(t, w)
	random := rand.New(rand.NewPCG(3, 4))
	for name, text := range map[string][]byte{
		"garbage":                     randomBytes(random, 1000),
		"plaintext":                   []byte("HTTP/1.1 500 Internal Server Error\r\n\r\n"),
		"records that do not decrypt": record(23, randomBytes(random, 1000)),
		"a record that is huge": append([]byte{23, 3, 3, 0xff, 0xff},
			make([]byte, 70000)...),
		"empty records":        bytes.Repeat(record(23, nil), 1000),
		"a plain close_notify": record(21, []byte{1, 0}),
		"a plain fatal alert":  record(21, []byte{2, 40}),
		"half a record":        {23, 3, 3, 0, 100, 1, 2, 3},
		"nothing":              {},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			p.meet(func(c *net.TCPConn) {
				s := tls.Server(c,
					&tls.Config{Certificates: []tls.Certificate{w.cert.TLS()},
						MaxVersion: version})
				if _, err := io.WriteString(s, reply); err == nil {
					c.Write(text)
					c.CloseWrite()
				}
				io.Copy(io.Discard, c)
			}, func(phase string, data []byte, err error) {
				kinds(t, fmt.Sprintf("%s in %s, in the %s", name,
					tls.VersionName(version), phase), err, client.KindIO)
				if string(data) != reply {
					t.Errorf("%s: before the error %q was read, want %q", name,
						data, reply)
				}
			})
		}
	}
	p.well()
}
