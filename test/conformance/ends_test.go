package conformance

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/ours"
	"tlsd/internal/tap"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// The table "ends" has the ways in which a connection ends: which side ends it and how, and the
// exact result of each later call. The table holds for our client and our server, at each level, in
// TLS 1.2 and 1.3, with every version of OpenSSL (make libssl-matrix). The peer is crypto/tls. The
// table has the kind and the errno of each error in front of its text. The plugin gives only the
// text. The plugin runs in its strict mode: a Write waits until tlsd has sent its bytes. If tlsd
// cannot send them, this Write fails, and not a later call.

type ender string

const (
	they ender = "they end"
	we   ender = "we end"
)

// Lines that occur in several rows.
const (
	readEnd   = `Read: the end`
	closeOK   = `Close: ok`
	shutOK    = `Shutdown: ok`
	peerEnd   = `the peer reads: close_notify, then FIN`
	peerCut   = `the peer reads: FIN without close_notify`
	peerLeft  = `the peer reads: FIN or a reset`
	wasCut    = `io: tls.Read: handle N: the connection was cut: the peer closed it without close_notify`
	wasReset  = `io ECONNRESET: tls.Read: handle N: read: connection reset by peer`
	writeRST  = `io ECONNRESET: tls.Write: handle N: write: connection reset by peer`
	duringEnd = `handshake: %s: handle N: TLS handshake failed: the peer closed the connection during the handshake`
)

// An end is a row of the table. Its act makes the calls and notes their results. The connection has
// done its handshake, except in the rows "in the handshake".
type end struct {
	who  ender
	how  string
	act  func(*bout)
	want []string
	// If not nil, our server has this result, and only our client has want.
	wantServer []string
	// If not nil, the plugin must have one of these results. The plugin uses a data channel, so
	// the worker reads from the peer by itself, and notices a reset even if no call runs.
	wantPlugin [][]string
}

var ends = []end{
	{who: they, how: "clean close", act: func(b *bout) {
		b.peer.CloseWrite()
		b.read()
		b.read()
		b.close()
		b.peerReads()
	}, want: []string{readEnd, readEnd, closeOK, peerEnd}},
	{who: they, how: "half-close", act: func(b *bout) {
		b.peer.CloseWrite()
		b.read()
		b.write(20_000)
		b.write(3)
		b.read()
		b.close()
		b.peerReads()
	}, want: []string{readEnd, `Write: 20000 bytes`, `Write: 3 bytes`, readEnd, closeOK, `the peer reads: 20003 bytes`, peerEnd}},
	{who: they, how: "cut", act: func(b *bout) {
		b.peerWrites(3)
		b.tcp.Close()
		b.read()
		b.read()
		b.read()
		b.write(3)
		b.close()
	}, want: []string{`Read: 3 bytes`, "Read: " + wasCut, "Read: " + wasCut, `Write: 3 bytes`, closeOK}},
	{who: they, how: "reset", act: func(b *bout) {
		b.tcp.SetLinger(0)
		b.tcp.Close()
		b.read()
		b.read()
		b.write(3)
		b.close()
	}, want: []string{"Read: " + wasReset, "Read: " + wasReset, "Write: " + writeRST, closeOK}},
	{who: they, how: "fatal alert", act: func(b *bout) {
		b.relay.Spoil(b.ours())
		b.write(3)
		b.peerReads() // and sends the alert
		b.read()
		b.read()
		b.write(3)
		b.close()
	}, want: []string{`Write: 3 bytes`, `the peer reads: bad record MAC`,
		`Read: io: tls.Read: handle N: TLS failed: the peer sent the alert bad_record_mac (20)`,
		`Read: io: tls.Read: handle N: TLS failed: the peer sent the alert bad_record_mac (20)`,
		`Write: io: tls.Write: handle N: TLS failed: the peer sent the alert bad_record_mac (20)`, closeOK}},
	{who: they, how: "close with unread data", act: func(b *bout) {
		b.direct()
		b.write(20_000)
		b.awaitTheirs(20_000)
		b.peerWrites(3)
		b.peer.Close() // unread data: the kernel sends a reset after the 3 bytes
		b.read()
		b.read()
		b.awaitReset()
		b.write(3)
		b.close()
	}, want: []string{`Write: 20000 bytes`, `Read: 3 bytes`, readEnd,
		`Write: io ECONNRESET: tls.Write: handle N: write: connection reset by peer`, closeOK},
		// The peer never gets the written data, and a later call tells that. Which call it
		// is depends on when the worker notices the reset.
		wantPlugin: [][]string{
			{`Write: 20000 bytes`, `Read: 3 bytes`, `Read: tls.Write: handle N: write: connection reset by peer`,
				`Write: tls.Write: handle N: write: connection reset by peer`, closeOK},
			{`Write: 20000 bytes`, `Read: tls.Write: handle N: write: connection reset by peer`, `Read: 3 bytes`,
				`Write: tls.Write: handle N: write: connection reset by peer`, closeOK},
			{`Write: 20000 bytes`, `Read: 3 bytes`, readEnd, `Write: tls.Write: handle N: write: connection reset by peer`, closeOK},
		}},
	{who: they, how: "close while we are not reading", act: func(b *bout) {
		b.peerWrites(20_000)
		b.peer.Close()
		b.readAll()
		b.close()
	}, want: []string{`Read: 20000 bytes`, readEnd, closeOK}},
	{who: they, how: "close twice", act: func(b *bout) {
		b.peer.Close()
		b.peer.Close()
		b.read()
		b.read()
		b.close()
	}, want: []string{readEnd, readEnd, closeOK}},
	{who: they, how: "close in the handshake", act: func(b *bout) {
		b.theyLeave()
	}, want: []string{"Handshake: " + fmt.Sprintf(duringEnd, "tls.Handshake"), closeOK},
		wantServer: []string{"Accept: handshake: tls.Accept: handle N: client PEER: TLS " +
			"handshake failed: the peer closed the connection during the handshake"}},

	{who: we, how: "clean close", act: func(b *bout) {
		b.close()
		b.peerReads()
	}, want: []string{closeOK, peerEnd}},
	{who: we, how: "half-close", act: func(b *bout) {
		b.write(3)
		b.shutdown()
		b.shutdown()
		b.peerReadsOurEnd()
		b.write(3)
		b.peerWrites(20_000)
		b.peer.CloseWrite()
		b.readAll()
		b.close()
		b.peerReads()
	}, want: []string{`Write: 3 bytes`, shutOK, shutOK, `the peer reads: 3 bytes`, `the peer reads: close_notify`,
		`Write: state: tls.Write: handle N: close_notify has been sent (tls.Shutdown), so nothing can follow`,
		`Read: 20000 bytes`, readEnd, closeOK, peerEnd},
		// The plugin itself refuses the Write.
		wantPlugin: [][]string{{`Write: 3 bytes`, shutOK, shutOK, `the peer reads: 3 bytes`, `the peer reads: close_notify`,
			`Write: tls.Write: handle N: tls.Shutdown has ended this direction; only tls.Read and tls.Close are possible`,
			`Read: 20000 bytes`, readEnd, closeOK, peerEnd}}},
	{who: we, how: "cut", act: func(b *bout) {
		b.S.Close() // the end of a session sends no close_notify
		b.peerReads()
	}, want: []string{peerCut}},
	{who: we, how: "reset", act: func(b *bout) {
		b.direct()
		b.peerWrites(20_000)
		b.awaitOurs()
		b.S.Close() // unread data: the kernel sends a reset
		b.peerReads()
		// At the plugin level the worker may have read the data already. Then there is no
		// reset.
	}, want: []string{`the peer reads: a reset`},
		wantPlugin: [][]string{{peerCut}, {`the peer reads: a reset`}}},
	{who: we, how: "fatal alert", act: func(b *bout) {
		b.relay.Spoil(b.theirs())
		b.peerWrites(3)
		b.read()
		b.read()
		b.write(3)
		b.peerReads()
		b.close()
	}, want: []string{
		`Read: io: tls.Read: handle N: TLS failed: decryption failed or bad record mac`,
		`Read: io: tls.Read: handle N: TLS failed: decryption failed or bad record mac`,
		`Write: io: tls.Write: handle N: TLS failed: decryption failed or bad record mac`,
		`the peer reads: the alert bad record MAC`, closeOK}},
	{who: we, how: "close with unread data", act: func(b *bout) {
		b.direct()
		b.peerWrites(20_000)
		b.awaitOurs()
		b.write(3)
		b.close()
		b.peerReads()
	}, want: []string{`Write: 3 bytes`, closeOK, `the peer reads: 3 bytes`, peerEnd}},
	{who: we, how: "close while the peer is not reading", act: func(b *bout) {
		b.write(20_000)
		b.close()
		b.peerReads()
	}, want: []string{`Write: 20000 bytes`, closeOK, `the peer reads: 20000 bytes`, peerEnd}},
	{who: we, how: "close while a Write waits for the peer", act: func(b *bout) {
		b.direct()
		b.closeDuringWrite()
		b.peerReads()
	}, want: []string{`Write: cancelled: tls.Write: handle N: the handle was closed while the call waited`, closeOK,
		`the peer reads: a part`, peerCut}},
	{who: we, how: "close twice", act: func(b *bout) {
		b.close()
		b.close()
		b.peerReads()
	}, want: []string{closeOK, `Close: handle: tls.Close: handle N: it is closed, or the call that was to make it has failed`, peerEnd}},
	{who: we, how: "close in the handshake", act: func(b *bout) { b.weLeave() },
		want:       []string{`Handshake: cancelled: tls.Handshake: handle N: the handle was closed while the call waited`, closeOK, peerLeft},
		wantServer: []string{`Accept: cancelled: tls.Accept: handle N: the handle was closed while the call waited`, `CloseServerContext: ok`, peerLeft}},
}

// After a connection has ended in one of these ways, each call has exactly the result of the table.
func TestEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, l us) {
		for _, e := range ends {
			for _, r := range []role{asClient, asServer} {
				for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
					name := fmt.Sprintf("%s/%s/our %s/%s", e.who, e.how, r,
						versionOf(v))
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						e.try(&bout{t: t, us: l.strict(), w: w,
							role: r, version: v})
					})
				}
			}
		}
	})
}

func (e end) try(b *bout) {
	b.t.Helper()
	if !strings.HasSuffix(e.how, "in the handshake") {
		b.connect(true)
	}
	e.act(b)
	want := slices.Clone(e.want)
	if b.role == asServer && e.wantServer != nil {
		want = slices.Clone(e.wantServer)
	}
	if cannot(b.us, b.role, tellKind) != "" {
		for i := range want {
			want[i] = kindAndErrno.ReplaceAllString(want[i], "$1$2")
			if !strings.HasPrefix(want[i], "Write: ") {
				// When the plugin closes a handle, it first cancels the calls on
				// the handle that wait in the daemon (write_request in
				// cmd/tlsshim/plugin/exchange.c). So a Handshake and an Accept have
				// another text. The Write of this table waits in the plugin, so its
				// text stays.
				want[i] = strings.Replace(want[i],
					"the handle was closed while the call waited",
					"cancelled by the caller", 1)
			}
		}
	}
	wanted := [][]string{want}
	if cannot(b.us, b.role, tellKind) != "" && e.wantPlugin != nil {
		wanted = e.wantPlugin
		want = wanted[0]
	}
	if !slices.ContainsFunc(wanted, func(w []string) bool { return slices.Equal(b.said, w) }) {
		b.t.Errorf("the results are\n\t%s\nwant (or, for the plugin, another list of "+
			"wantPlugin)\n\t%s", strings.Join(b.said, "\n\t"),
			strings.Join(want, "\n\t"))
	}
}

// kindAndErrno finds the kind and the errno in "Read: io ECONNRESET: tls.Read: …".
var kindAndErrno = regexp.MustCompile(`^(\w+: )\w+(?: E[A-Z]+)?: (tls\.)`)

// A bout is one connection between our side and crypto/tls, with the results of its calls.
type bout struct {
	t       *testing.T
	us      us
	w       *world
	role    role // of our side
	version uint16

	*ours.Stream              // our end
	peer         *tls.Conn    // the peer's end
	tcp          *net.TCPConn // the TCP connection of peer
	wire         *watched     // the same as tcp, but remembers the newest record
	relay        *tap.Relay   // between the two ends; not used after direct
	said         []string     // the results of the calls
}

// The method ours returns the direction of what our side sends through the relay, and theirs the
// other direction.
func (b *bout) ours() tap.Direction {
	if b.role == asServer {
		return tap.FromServer
	}
	return tap.FromClient
}

func (b *bout) theirs() tap.Direction { return 1 - b.ours() }

// connect makes the connection, through a relay if relayed is set.
func (b *bout) connect(relayed bool) {
	b.t.Helper()
	through := func(port int) int {
		if !relayed {
			return port
		}
		b.relay = tap.Start(b.t, port)
		return b.relay.Port
	}
	cfg := &tls.Config{MinVersion: b.version, MaxVersion: b.version, ServerName: "localhost",
		RootCAs: b.w.ca.Pool(), Certificates: []tls.Certificate{b.w.cert.TLS()}}
	begin := func(nc net.Conn, make func(net.Conn, *tls.Config) *tls.Conn) {
		b.t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(time.Now().Add(testkit.Patience))
		b.tcp, b.wire = nc.(*net.TCPConn), &watched{Conn: nc}
		b.peer = make(b.wire, cfg)
	}
	if b.role == asServer {
		l := b.us.server(b.t, listenOptions{cert: b.w.cert})
		accepted := accepting(b.t, l)
		nc, err := net.Dial("tcp", testkit.Addr(through(l.Port)))
		testkit.Must(b.t, err)
		begin(nc, tls.Client)
		testkit.Must(b.t, b.peer.Handshake())
		a := <-accepted
		testkit.Must(b.t, a.err)
		b.Stream = a.stream.(ourStream).Stream
	} else {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		testkit.Must(b.t, err)
		defer l.Close()
		dialed := make(chan accepted, 1)
		go func() {
			port := through(l.Addr().(*net.TCPAddr).Port)
			s, err := b.us.dial(b.t, address{"localhost", port},
				dialOptions{ca: b.w.ca.File})
			dialed <- accepted{s, err}
		}()
		l.(*net.TCPListener).SetDeadline(time.Now().Add(testkit.Patience))
		nc, err := l.Accept()
		testkit.Must(b.t, err)
		begin(nc, tls.Server)
		testkit.Must(b.t, b.peer.Handshake())
		a := <-dialed
		testkit.Must(b.t, a.err)
		b.Stream = a.stream.(ourStream).Stream
	}
	// A byte goes each way. After that, both ends have processed the whole handshake, with its
	// tickets.
	b.peerWrites(1)
	if n, err := b.Read(make([]byte, 9)); n != 1 || err != nil {
		b.t.Fatalf("our first Read gives %d bytes, %v; want 1 byte", n, err)
	}
	if _, err := b.Write([]byte{1}); err != nil {
		b.t.Fatal(err)
	}
	if _, err := io.ReadFull(b.peer, make([]byte, 1)); err != nil {
		b.t.Fatal(err)
	}
}

// The method direct replaces the connection by a connection without a relay. A relay would read
// data that must remain in the sockets.
func (b *bout) direct() {
	b.t.Helper()
	b.tcp.Close()
	b.connect(false)
}

func (b *bout) note(format string, args ...any) {
	b.said = append(b.said, fmt.Sprintf(format, args...))
}

var (
	handleNumber = regexp.MustCompile(`handle \d+`)
	peerAddress  = regexp.MustCompile(`127\.0\.0\.1:\d+`)
)

// The method outcome notes the result of a call of ours: its error, or the text that is given for a
// success. In the error it replaces the handle and the port, which differ from run to run.
func (b *bout) outcome(call string, err error, success string) {
	e := failure(err)
	switch {
	case err == nil:
		b.note("%s: %s", call, success)
	case e == nil:
		b.note("%s: %v", call, err)
	default:
		kind := ""
		if tells(e) {
			kind = string(e.Kind) + ": "
		}
		if e.Data.Errno != "" {
			kind = string(e.Kind) + " " + e.Data.Errno + ": "
		}
		text := handleNumber.ReplaceAllString(e.Message, "handle N")
		b.note("%s: %s%s", call, kind, peerAddress.ReplaceAllString(text, "PEER"))
	}
}

func (b *bout) read() {
	n, err := b.Read(make([]byte, 1<<16))
	if err == io.EOF {
		b.note(readEnd)
		return
	}
	b.outcome("Read", err, fmt.Sprintf("%d bytes", n))
}

// readAll reads to the end.
func (b *bout) readAll() {
	all, err := io.ReadAll(b.Stream)
	b.outcome("Read", err, fmt.Sprintf("%d bytes", len(all)))
	b.read()
}

func (b *bout) write(size int) {
	n, err := b.Write(make([]byte, size))
	b.outcome("Write", err, fmt.Sprintf("%d bytes", n))
}

func (b *bout) close() { b.outcome("Close", b.Close(), "ok") }

func (b *bout) shutdown() { b.outcome("Shutdown", b.S.Shutdown(b.Ctx, b.H), "ok") }

func (b *bout) peerWrites(size int) {
	b.t.Helper()
	if _, err := b.peer.Write(make([]byte, size)); err != nil {
		b.t.Fatalf("the peer cannot write: %v", err)
	}
}

// peerReads lets the peer read to the end. It notes how much data came, and how the connection
// ended.
func (b *bout) peerReads() {
	n, err := io.Copy(io.Discard, b.peer)
	switch {
	case n >= partial:
		b.note("the peer reads: a part")
	case n > 0:
		b.note("the peer reads: %d bytes", n)
	}
	var alert tls.AlertError
	var op *net.OpError
	switch {
	case err == nil && b.wire.endsInAlert(b.version):
		rest, err := io.Copy(io.Discard, b.tcp)
		if rest != 0 || err != nil {
			b.t.Errorf("after close_notify: %d bytes, %v; want FIN", rest, err)
		}
		b.note(peerEnd)
	case err == nil, errors.Is(err, io.ErrUnexpectedEOF):
		b.note(peerCut)
	case errors.Is(err, syscall.ECONNRESET):
		b.note("the peer reads: a reset")
	case errors.As(err, &op) && op.Op == "remote error":
		b.note("the peer reads: the alert %s", strings.TrimPrefix(op.Err.Error(), "tls: "))
	case errors.As(err, &alert), errors.As(err, &op) && op.Op == "local error":
		b.note("the peer reads: %s", strings.TrimPrefix(op.Err.Error(), "tls: "))
	default:
		b.note("the peer reads: %v", err)
	}
}

// peerReadsOurEnd lets the peer read to our close_notify. Unlike peerReads it does not wait for a
// FIN.
func (b *bout) peerReadsOurEnd() {
	b.t.Helper()
	n, err := io.Copy(io.Discard, b.peer)
	if err != nil || !b.wire.endsInAlert(b.version) {
		b.t.Fatalf("the peer reads %d bytes, %v, without close_notify", n, err)
	}
	b.note("the peer reads: %d bytes", n)
	b.note("the peer reads: close_notify")
}

// If a peer has read this many bytes, they are a part of the large Write of closeDuringWrite. All
// other rows send less.
const partial = 1 << 16

// awaitTheirs waits until n bytes of our data are in the peer's socket, unread.
func (b *bout) awaitTheirs(n int) {
	b.t.Helper()
	testkit.Until(b.t, "data waits for the peer", func() bool {
		return testkit.Queue(b.t, b.tcp, unix.SIOCINQ) >= n
	})
}

// awaitOurs waits until all data of the peer is in our socket.
func (b *bout) awaitOurs() {
	b.t.Helper()
	testkit.Until(b.t, "data waits for us", func() bool {
		return testkit.Queue(b.t, b.tcp, unix.SIOCOUTQ) == 0
	})
}

// awaitReset waits until the kernel has delivered the peer's reset to our socket.
func (b *bout) awaitReset() {
	b.t.Helper()
	ours := b.tcp.RemoteAddr().(*net.TCPAddr).Port
	theirs := b.tcp.LocalAddr().(*net.TCPAddr).Port
	testkit.Until(b.t, "our socket is reset",
		func() bool { return !testd.Connected(b.t, ours, theirs) })
}

// closeDuringWrite closes the handle while a Write waits for the peer, which does not read.
func (b *bout) closeDuringWrite() {
	b.t.Helper()
	wrote := make(chan error, 1)
	go func() {
		_, err := b.Write(make([]byte, 16<<20)) // more than sockets hold
		wrote <- err
	}()
	b.awaitTheirs(partial)
	err := b.Close()
	b.outcome("Write", <-wrote, "ok")
	b.outcome("Close", err, "ok")
}

// A stranger is a peer that does not do its part of the handshake.
type stranger func(*net.TCPConn)

// meet lets our side begin a handshake with a stranger. When the two are connected, meet returns.
// The channel receives the result of our Handshake or Accept.
func (b *bout) meet(s stranger) <-chan error {
	b.t.Helper()
	said := make(chan error, 1)
	acted := make(chan bool)
	b.t.Cleanup(func() { <-acted })
	if b.role == asServer {
		l := b.us.server(b.t, listenOptions{cert: b.w.cert})
		b.Stream = &ours.Stream{TB: b.t, Ctx: l.Ctx, S: l.S, H: l.H}
		nc, err := net.Dial("tcp", testkit.Addr(l.Port))
		testkit.Must(b.t, err)
		b.t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(time.Now().Add(testkit.Patience))
		go func() { defer close(acted); s(nc.(*net.TCPConn)) }()
		go func() {
			_, err := l.accept(b.t)
			said <- err
		}()
		return said
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(b.t, err)
	defer l.Close()
	b.Stream = &ours.Stream{TB: b.t, Ctx: testkit.Bounded(b.t), S: b.us.open(b.t, b.w.ca.File)}
	b.H, err = b.S.NewClient(b.Ctx, "localhost", l.Addr().(*net.TCPAddr).Port)
	testkit.Must(b.t, err)
	nc, err := l.Accept()
	testkit.Must(b.t, err)
	b.t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(testkit.Patience))
	go func() { defer close(acted); s(nc.(*net.TCPConn)) }()
	go func() { said <- b.S.Handshake(b.Ctx, b.H) }()
	return said
}

// theyLeave lets the peer end the connection during our handshake: after a part of the ClientHello.
func (b *bout) theyLeave() {
	b.t.Helper()
	said := b.meet(func(c *net.TCPConn) {
		if b.role == asServer {
			hello := clientHello(b.t)
			c.Write(hello[:len(hello)/2])
		} else {
			io.ReadFull(c, make([]byte, 100))
		}
		c.CloseWrite()
		io.Copy(io.Discard, c)
	})
	if b.role == asServer {
		b.outcome("Accept", <-said, "ok")
		return
	}
	b.outcome("Handshake", <-said, "ok")
	b.close()
}

// weLeave lets our side close its handle during the handshake. If the peer is the client, it has
// sent half of its ClientHello. If the peer is the server, it has sent nothing.
func (b *bout) weLeave() {
	b.t.Helper()
	begun, left := make(chan bool), make(chan string, 1)
	said := b.meet(func(c *net.TCPConn) {
		if b.role == asServer {
			hello := clientHello(b.t)
			c.Write(hello[:len(hello)/2])
		} else if _, err := io.ReadFull(c, make([]byte, 100)); err != nil {
			b.t.Errorf("the client has not sent the 100 bytes that begin its "+
				"handshake: %v", err)
		}
		close(begun)
		_, err := io.Copy(io.Discard, c)
		if err != nil && !errors.Is(err, syscall.ECONNRESET) {
			b.t.Errorf("the peer's read ends with %v, want FIN or a reset", err)
		}
		left <- peerLeft
	})
	<-begun
	if b.role == asServer {
		// The Accept does not end by itself. So it does not matter whether tlsd has already
		// read the half ClientHello.
		testkit.Until(b.t, "the Accept has arrived", func() bool {
			// The context has the handle H. An Accept that ours.Listen has cancelled
			// has used up the number H+1. So our Accept has H+2.
			e := failure(b.S.CloseServerContext(b.Ctx, b.H+2))
			return e != nil && mentions(e, "it is a connection")
		})
		err := b.S.CloseServerContext(b.Ctx, b.H)
		b.outcome("Accept", <-said, "ok")
		b.outcome("CloseServerContext", err, "ok")
	} else {
		err := b.Close()
		b.outcome("Handshake", <-said, "ok")
		b.outcome("Close", err, "ok")
	}
	b.said = append(b.said, <-left)
}

// A watched is a TCP connection that remembers the newest record that was read whole.
type watched struct {
	net.Conn
	buf []byte // a record of which only a part was read
	typ byte   // type of the newest record
	n   int    // bytes of the newest record
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.buf = append(w.buf, p[:n]...)
	for len(w.buf) >= 5 {
		body := int(binary.BigEndian.Uint16(w.buf[3:]))
		if len(w.buf) < 5+body {
			break
		}
		w.typ, w.n = w.buf[0], body
		w.buf = w.buf[5+body:]
	}
	return n, err
}

// endsInAlert says whether the newest record is an alert. TLS 1.3 hides the type of a record, but
// not its size. An alert has two bytes, one byte for the type, and 16 for the authentication. No
// other record of these tests has this size.
func (w *watched) endsInAlert(version uint16) bool {
	if version == tls.VersionTLS13 {
		return w.typ == tap.ApplicationData && w.n == 2+1+16
	}
	return w.typ == tap.Alert
}
