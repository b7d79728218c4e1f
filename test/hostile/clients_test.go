package hostile

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// Bad clients of a session that accepts.

// An attack is the behaviour of a bad client on its connection, which is closed afterwards.
type attack struct {
	name string
	act  func(c *net.TCPConn)
}

// silence keeps a connection open until the other side ends it.
func silence(c *net.TCPConn) { io.Copy(io.Discard, c) }

// reset ends a connection with RST.
func reset(c *net.TCPConn) { c.SetLinger(0); c.Close() }

// attacks lists bad clients. None of them ever completes a handshake.
func attacks(t *testing.T, random *rand.Rand) []attack {
	hello := clientHello(t)
	send := func(parts ...[]byte) func(*net.TCPConn) {
		return func(c *net.TCPConn) {
			c.Write(bytes.Join(parts, nil))
			c.CloseWrite()
			silence(c)
		}
	}
	flood := func(record []byte,
		times int) func(*net.TCPConn) {
		return send(bytes.Repeat(record, times))
	}
	list := []attack{
		{"hangs up at once", func(c *net.TCPConn) {}},
		{"resets at once", reset},
		{"HTTP", send([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))},
		{"a request for a proxy", send([]byte("CONNECT localhost:443 HTTP/1.1\r\n\r\n"))},
		{"SSH", send([]byte("SSH-2.0-OpenSSH_9.2\r\n"))},
		{"zeros", send(make([]byte, 70000))},
		{"SSL 2", send([]byte("\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80" +
			strings.Repeat("x", 40)))},
		{"garbage", send(randomBytes(random, 4096))},
		{"resets after its first message",
			func(c *net.TCPConn) { c.Write(hello); reset(c) }},
		{"resets when it is answered",
			func(c *net.TCPConn) {
				c.Write(hello)
				io.ReadFull(c, make([]byte, 100))
				reset(c)
			}},
		{"answers with garbage", func(c *net.TCPConn) {
			c.Write(hello)
			io.ReadFull(c, make([]byte, 100))
			c.Write(record(23, randomBytes(random, 1000)))
			silence(c)
		}},
		{"says it twice", send(hello, hello)},
		{"a record that says it is huge",
			send([]byte{22, 3, 1, 0xff, 0xff}, make([]byte, 70000))},
		{"a record a little too long", send(record(22, make([]byte, 16384+2049)))},
		{"a message that says it is huge",
			send(record(22, []byte{1, 0xff, 0xff, 0xff, 3, 3}),
				record(22, make([]byte, 16000)))},
		{"empty records", flood(record(22, nil), 10000)},
		{"empty records of data", flood(record(23, nil), 10000)},
		{"records of one byte", func(c *net.TCPConn) {
			for _, b := range hello[5 : len(hello)-1] {
				c.Write(record(22, []byte{b}))
			}
		}},
		{"warnings", flood(record(21, []byte{1, 90}), 10000)},
		{"half alerts", flood(record(21, []byte{1}), 1000)},
		{"close_notify", send(record(21, []byte{1, 0}))},
		{"close_notify after its first message", send(hello, record(21, []byte{1, 0}))},
		{"a fatal alert", send(record(21, []byte{2, 40}))},
		{"ChangeCipherSpec", flood(record(20, []byte{1}), 1000)},
		{"heartbeats", send(hello,
			record(24, []byte("\x01\x40\x00"+strings.Repeat("x", 20))))},
		{"a first message of 64 KiB",
			func(c *net.TCPConn) {
				c.Write(stretched(hello, 1, 60000))
				io.ReadFull(c, make([]byte, 1))
			}},
		{"a first message of a thousand extensions",
			func(c *net.TCPConn) {
				c.Write(stretched(hello, 1000, 10))
				io.ReadFull(c, make([]byte, 1))
			}},
		{"one extension twice", send(repeated(hello))},
	}
	for range 20 {
		var text []byte
		for range 1 + random.IntN(5) {
			text = append(text, record(byte(20+random.IntN(5)),
				randomBytes(random, random.IntN(3000)))...)
		}
		list = append(list, attack{"random records", send(text)})
	}
	for range 20 {
		text := bytes.Clone(hello)
		for range 1 + random.IntN(3) {
			text[random.IntN(len(text))] ^= byte(1 + random.IntN(255))
		}
		list = append(list, attack{"a first message with errors", send(text)})
	}
	for at := 1; at < len(hello); at += max(1, len(hello)/30) {
		for how, act := range map[string]func(*net.TCPConn){
			"hangs up": func(c *net.TCPConn) { c.CloseWrite(); silence(c) },
			"resets":   reset, "says nothing more": silence} {
			list = append(list, attack{fmt.Sprintf("%s after %d bytes", how, at),
				func(c *net.TCPConn) { c.Write(hello[:at]); act(c) }})
		}
	}
	return list
}

// Bad clients do not hold up good clients, even if 50 bad clients are slow all the time. Each bad
// client makes exactly one Accept fail, and leaves no descriptor in the worker.
func TestBadClientsHoldUpNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	bad := attacks(t, rand.New(rand.NewPCG(seed, 1)))
	hello := clientHello(t)
	const timeout = 8 * time.Second
	d := testd.Start(t, "--accept-handshake-timeout="+timeout.String())
	ctx := testkit.Bounded(t)
	c := d.Dial(t)
	sc, err := c.NewServerContext(ctx, w.cert.CertFile, w.cert.KeyFile)
	testkit.Must(t, err)
	port := testkit.Port(t)
	pid := workerOf(t, c)

	// The server accepts one client after another, and sends back what a client sends first.
	const marker = "the last one"
	// raised has the texts of failed Accepts, by the client's address. Only the goroutine below
	// uses it until serving has ended.
	raised := map[string][]string{}
	var greeting, serving sync.WaitGroup
	serving.Go(func() {
		for {
			h, err := c.Accept(ctx, sc, "127.0.0.1", port)
			if err != nil {
				e := err.(*client.Error)
				m := clientOf.FindStringSubmatch(e.Message)
				if m == nil || e.Kind != client.KindHandshake &&
					e.Kind != client.KindTimeout {
					t.Errorf("an Accept fails with %v (kind %s); want kind "+
						"handshake or timeout, and the client's address",
						err, e.Kind)
					return
				}
				raised[m[1]] = append(raised[m[1]], e.Message)
				continue
			}
			last := make(chan bool, 1)
			greeting.Go(func() {
				p, err := c.Read(ctx, h, 100)
				if err == nil {
					_, err = c.Write(ctx, h, p)
				}
				if err == nil {
					err = c.CloseConn(ctx, h)
				}
				if err != nil {
					t.Errorf("the connection of a good client fails: %v", err)
				}
				last <- string(p) == marker
			})
			if <-last {
				return
			}
		}
	})
	testd.AwaitListener(t, port)
	var mu sync.Mutex          // guards who
	who := map[string]string{} // the bad clients: their behaviour, by their address
	// greet plays a good client. If the handshake of this client exceeds the timeout, because
	// the machine is slow, the client counts as a bad client.
	greet := func(text string) (took time.Duration, served bool) {
		t.Helper()
		addr, took, err := greeted(w, port, text)
		switch {
		case err != nil && took >= timeout:
			mu.Lock()
			who[addr] = fmt.Sprintf("is too slow, with %q: %v", text, err)
			mu.Unlock()
		case err != nil:
			t.Fatalf("the good client that sends %q fails after %v: %v", text, took,
				err)
		}
		return took, err == nil
	}
	first, _ := greet("hello")
	t.Logf("a good client alone: %v", first)
	files := len(testkit.OpenFiles(t, pid))

	var clients atomic.Uint32
	run := func(a attack) error {
		// Each client has an IP address of its own. With a common address, a client could
		// get the port of a client that has just ended, and the two would look like one.
		n := clients.Add(1)
		d := net.Dialer{Timeout: testkit.Patience,
			LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(n>>8), byte(n))}}
		conn, err := d.Dial("tcp", testkit.Addr(port))
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(testkit.Patience))
		mu.Lock()
		who[conn.LocalAddr().String()] = a.name
		mu.Unlock()
		a.act(conn.(*net.TCPConn))
		return nil
	}
	stop := make(chan struct{})
	var dawdling, attacking sync.WaitGroup
	end := sync.OnceFunc(func() {
		close(stop)
		dawdling.Wait()
	})
	t.Cleanup(func() { // if the test has ended early, none of its goroutines may outlive it
		_ = c.Close() // ends the Accepts, and the connections of all clients
		end()
		attacking.Wait()
		serving.Wait()
		greeting.Wait()
	})
	for i := range 50 {
		dawdling.Go(func() {
			for {
				err := run(attack{"dawdles", func(c *net.TCPConn) {
					for _, b := range hello {
						if _, err := c.Write([]byte{b}); err != nil ||
							i%2 == 0 {
							break
						}
						select {
						// the test needs a slow client
						case <-time.After(time.Second):
						case <-stop:
						}
					}
					silence(c)
				}})
				if err != nil {
					t.Errorf("a slow client cannot connect: %v", err)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	queue := make(chan attack)
	for range 30 {
		attacking.Go(func() {
			for a := range queue {
				if err := run(a); err != nil {
					t.Errorf("bad client (%s) cannot connect: %v", a.name, err)
				}
			}
		})
	}
	go func() {
		for _, a := range bad {
			queue <- a
		}
		close(queue)
	}()
	over := make(chan struct{})
	go func() { attacking.Wait(); close(over) }()

	var took []time.Duration
	for attacked := true; attacked; {
		one, _ := greet(fmt.Sprint("hello ", len(took)))
		took = append(took, one)
		select {
		case <-over:
			attacked = false
		default:
		}
	}
	end()
	slices.Sort(took)
	median := took[len(took)/2]
	t.Logf("%d good clients among %d bad ones: median %v, slowest %v", len(took), len(who),
		median, took[len(took)-1])
	// If slow clients held up a good client, it would wait for their timeout.
	if median >= timeout {
		t.Errorf("half of the good clients waited for %v or more; the timeout for bad "+
			"clients is %v", median, timeout)
	}
	served := false
	// The server stops at the marker. All bad clients have come before.
	for tries := 0; !served; tries++ {
		if tries == 10 {
			t.Fatalf("none of %d good clients was served in time", tries)
		}
		_, served = greet(marker)
	}
	serving.Wait()
	greeting.Wait()
	for addr, name := range who {
		if len(raised[addr]) != 1 {
			t.Errorf("bad client (%s): %d Accepts failed because of it, want 1: %q",
				name, len(raised[addr]), raised[addr])
		}
	}
	if len(raised) != len(who) {
		t.Errorf("Accepts failed because of %d clients, want %d: the bad ones",
			len(raised), len(who))
	}
	settled(t, pid, files)
}

// clientOf finds the client's address in the text of a failed Accept.
var clientOf = regexp.MustCompile(`client (127[\d.]+:\d+): `)

// greeted plays a good client: it sends a text, and must get it back. addr is the client's address.
// took is the time from the start of the connection to its end.
func greeted(w *world, port int, text string) (addr string, took time.Duration, err error) {
	begin := time.Now()
	defer func() { took = time.Since(begin) }()
	nc, err := net.DialTimeout("tcp", testkit.Addr(port), testkit.Patience)
	if err != nil {
		return "", 0, err
	}
	defer nc.Close()
	addr = nc.LocalAddr().String()
	nc.SetDeadline(time.Now().Add(testkit.Patience))
	conn := tls.Client(nc, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost"})
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		return addr, 0, err
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != text {
		return addr, 0, fmt.Errorf("got %q back, with the error %v; want the text that "+
			"was sent", got, err)
	}
	return addr, 0, nil
}

// clientHello returns the first record that a client of crypto/tls sends.
func clientHello(t *testing.T) []byte {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		tls.Client(near, &tls.Config{ServerName: "localhost"}).Handshake()
	}()
	far.SetDeadline(time.Now().Add(testkit.Patience))
	head := make([]byte, 5)
	_, err := io.ReadFull(far, head)
	testkit.Must(t, err)
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	_, err = io.ReadFull(far, body)
	testkit.Must(t, err)
	far.Close()
	<-done
	return append(head, body...)
}

// record makes a TLS record (RFC 8446, section 5.1).
func record(kind byte, body []byte) []byte {
	return append([]byte{kind, 3, 3, byte(len(body) >> 8), byte(len(body))}, body...)
}

// stretched adds unknown extensions of size bytes each to a ClientHello, and cuts the new
// ClientHello into records.
func stretched(hello []byte, extensions, size int) []byte {
	return rebuilt(hello, func(known []byte) []byte {
		for i := range extensions {
			known = binary.BigEndian.AppendUint16(known, uint16(0x4000+i)) // unassigned
			known = binary.BigEndian.AppendUint16(known, uint16(size))
			known = append(known, make([]byte, size)...)
		}
		return known
	})
}

// repeated returns a ClientHello that has its first extension twice.
func repeated(hello []byte) []byte {
	return rebuilt(hello, func(known []byte) []byte {
		return append(known, known[:4+int(binary.BigEndian.Uint16(known[2:]))]...)
	})
}

// rebuilt replaces the extensions of a ClientHello (RFC 8446, section 4.1.2).
func rebuilt(hello []byte, change func(extensions []byte) []byte) []byte {
	body := hello[5+4:]
	at := 2 + 32
	at += 1 + int(body[at])
	at += 2 + int(binary.BigEndian.Uint16(body[at:]))
	at += 1 + int(body[at])
	extensions := change(bytes.Clone(body[at+2:]))
	body = append(bytes.Clone(body[:at]), byte(len(extensions)>>8), byte(len(extensions)))
	body = append(body, extensions...)
	message := append([]byte{1, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))},
		body...)
	var out []byte
	for part := range slices.Chunk(message, 16384) {
		out = append(out, record(22, part)...)
	}
	return out
}

func randomBytes(random *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(random.Uint32())
	}
	return p
}

// If a client turns bad after its handshake, a Read of its connection fails with kind io. Other
// connections of the session go on.
func TestClientsThatTurnBad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	random := rand.New(rand.NewPCG(1, 2))
	d := testd.Start(t)
	ctx := testkit.Bounded(t)
	c := d.Dial(t)
	sc, err := c.NewServerContext(ctx, w.cert.CertFile, w.cert.KeyFile)
	testkit.Must(t, err)
	port := testkit.Port(t)
	pid := workerOf(t, c)
	dial := func(version uint16) (*net.TCPConn, *tls.Conn, error) {
		raw, err := net.Dial("tcp", testkit.Addr(port))
		if err != nil {
			return nil, nil, err
		}
		raw.SetDeadline(time.Now().Add(testkit.Patience))
		conn := tls.Client(raw, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost",
			MaxVersion: version})
		return raw.(*net.TCPConn), conn, conn.Handshake()
	}
	a := accept(t, c, sc, port)
	_, witness, err := dial(0)
	testkit.Must(t, err)
	defer witness.Close()
	wh := <-a
	files := len(testkit.OpenFiles(t, pid))
	for name, act := range map[string]func(c *net.TCPConn){
		"garbage":   func(c *net.TCPConn) { c.Write(randomBytes(random, 1000)) },
		"plaintext": func(c *net.TCPConn) { io.WriteString(c, "GET / HTTP/1.0\r\n\r\n") },
		"records that do not decrypt": func(c *net.TCPConn) {
			c.Write(record(23, randomBytes(random, 1000)))
		},
		"a record that is huge": func(c *net.TCPConn) {
			c.Write([]byte{23, 3, 3, 0xff, 0xff})
			c.Write(make([]byte, 70000))
		},
		"empty records": func(c *net.TCPConn) {
			c.Write(bytes.Repeat(record(23, nil), 1000))
		},
		"a plain alert":        func(c *net.TCPConn) { c.Write(record(21, []byte{2, 40})) },
		"a plain close_notify": func(c *net.TCPConn) { c.Write(record(21, []byte{1, 0})) },
		"a second handshake, in the clear": func(c *net.TCPConn) {
			c.Write(clientHello(t))
		},
		"half a record, and the end": func(c *net.TCPConn) {
			c.Write([]byte{23, 3, 3, 0, 100, 1, 2, 3})
			c.CloseWrite()
		},
		"half a record, and a reset": func(c *net.TCPConn) {
			c.Write([]byte{23, 3, 3, 0, 100, 1, 2, 3})
			reset(c)
		},
		"a reset": reset,
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			a := accept(t, c, sc, port)
			raw, _, err := dial(version)
			testkit.Must(t, err)
			h := <-a
			act(raw)
			_, err = c.Read(ctx, h, 100)
			kinds(t, fmt.Sprintf("a Read after the client (%s) turned bad in %s", name,
				tls.VersionName(version)), err, client.KindIO)
			testkit.Must(t, c.CloseConn(ctx, h))
			raw.Close()
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	_, err = c.Write(ctx, wh, []byte("still here"))
	testkit.Must(t, err)
	if got := make([]byte, 10); true {
		_, err := io.ReadFull(witness, got)
		testkit.Must(t, err)
	}
	settled(t, pid, files)
}

// accept begins an Accept for the next client, and waits until the context listens.
func accept(t *testing.T, c *client.Client, sc client.Handle, port int) <-chan client.Handle {
	t.Helper()
	got := make(chan client.Handle, 1)
	go func() {
		h, err := c.Accept(t.Context(), sc, "127.0.0.1", port)
		if err != nil {
			t.Error(err)
		}
		got <- h
	}()
	testd.AwaitListener(t, port)
	return got
}

// If a client of TLS 1.2 asks for a renegotiation, tlsd refuses it, however often the client asks.
func TestRenegotiationIsRefused(t *testing.T) {
	t.Parallel()
	testkit.Tool(t, "openssl") // crypto/tls does not ask for a new handshake
	w := newWorld(t)
	d := testd.Start(t)
	ctx := testkit.Bounded(t)
	c := d.Dial(t)
	sc, err := c.NewServerContext(ctx, w.cert.CertFile, w.cert.KeyFile)
	testkit.Must(t, err)
	port := testkit.Port(t)
	accepted := accept(t, c, sc, port)
	cmd := exec.CommandContext(ctx, "openssl", "s_client", "-tls1_2", "-connect",
		testkit.Addr(port))
	in, err := cmd.StdinPipe()
	testkit.Must(t, err)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	ended := start(t, cmd)
	h := <-accepted
	for range 20 {
		io.WriteString(in, "R\n") // fails when s_client has given up
	}
	// s_client treats the refusal as an error, and ends. What tlsd reads then depends on the
	// version of s_client.
	for {
		p, err := c.Read(ctx, h, 100)
		if err != nil || len(p) == 0 {
			break
		}
	}
	in.Close()
	<-ended
	if !strings.Contains(out.String(), "RENEGOTIATING") ||
		!strings.Contains(out.String(), "no renegotiation") {
		t.Errorf("tlsd did not refuse the renegotiation; s_client says:\n%s", &out)
	}
	testkit.Must(t, c.CloseConn(ctx, h))
	serves(t, d)
}
