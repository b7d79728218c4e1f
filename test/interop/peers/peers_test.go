package peers

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tlsd/internal/ours"
	"tlsd/internal/tap"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// The names of the cases. Each case runs for every peer, in both roles of the peer, in TLS 1.2 and
// 1.3.
const (
	ticketsLate  = "tickets that arrive late"
	resumed      = "resumption"
	keyUpdate    = "KeyUpdate in the middle of data"
	retried      = "HelloRetryRequest"
	oneByte      = "records of one byte"
	largestOurs  = "records of 16 KiB from us"
	largestPeers = "records of 16 KiB from the peer"
	halfClosed   = "half-close by the peer"
	halfClosing  = "half-close by us"
	renegotiated = "renegotiation is refused"
	certOptional = "a client certificate is asked for"
	certRequired = "a client certificate is insisted on"
)

var cases = []struct {
	name    string
	run     func(*cell)
	plugin  bool // also through the plugin
	retries bool // our server takes P-384 only
}{
	{name: "RSA", run: withCert("RSA"), plugin: true},
	{name: "ECDSA", run: withCert("ECDSA"), plugin: true},
	{name: "Ed25519", run: withCert("Ed25519"), plugin: true},
	{name: chainOfThree, run: withCert(chainOfThree), plugin: true},
	{name: ticketsLate, run: (*cell).lateTickets},
	{name: resumed, run: (*cell).resumption},
	{name: keyUpdate, run: (*cell).keyUpdate, plugin: true},
	{name: retried, run: (*cell).helloRetry, retries: true},
	{name: oneByte, run: (*cell).oneByte, plugin: true},
	{name: largestOurs, run: func(c *cell) { c.largestRecords(1 - c.fromPeer()) },
		plugin: true},
	{name: largestPeers, run: func(c *cell) { c.largestRecords(c.fromPeer()) }, plugin: true},
	{name: halfClosed, run: (*cell).peerHalfCloses},
	{name: halfClosing, run: (*cell).weHalfClose, plugin: true},
	{name: renegotiated, run: (*cell).renegotiation},
	{name: certOptional, run: (*cell).clientCertOptional},
	{name: certRequired, run: (*cell).clientCertRequired},
}

// Each case passes between our side and each peer, in both roles of the peer. The variable unable
// lists what a peer cannot do.
func TestPeers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := testd.Start(t)
	// A second daemon, picky, is for HelloRetryRequest. Its servers take only P-384. Clients
	// send a key share for P-384 only if a HelloRetryRequest asks for it.
	cnf := filepath.Join(t.TempDir(), "openssl.cnf")
	testkit.Must(t, os.WriteFile(cnf, []byte("openssl_conf=a\n[a]\nssl_conf=b\n"+
		"[b]\nsystem_default=c\n[c]\nGroups=P-384\n"), 0o644))
	picky := testd.StartWith(t, testd.Options{Env: []string{"OPENSSL_CONF=" + cnf}})
	for _, p := range everyPeer {
		for _, r := range []role{asServer, asClient} {
			for _, k := range cases {
				for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
					via := []ours.Level{ours.Daemon{D: d}}
					if k.retries && r == asClient {
						via = []ours.Level{ours.Daemon{D: picky}}
					}
					if k.plugin {
						via = append(via, ours.Plugin{D: d})
					}
					for _, o := range via {
						s := setting{version: v, ca: w.ca.File,
							cert: w.certs["ECDSA"]}
						name := fmt.Sprintf("%s/%s %s/%s/TLS %s",
							o, p, r, k.name, s.name())
						t.Run(name, func(t *testing.T) {
							t.Parallel()
							why := cannot(p, r, k.name, v)
							if why != "" {
								t.Skip(why)
							}
							need(t, p.tool())
							k.run(&cell{T: t, w: w, level: o, peer: p,
								role: r, setting: s})
						})
					}
				}
			}
		}
	}
}

// bulk is the number of bytes that go each way in most cells.
const bulk = 300 << 10

// A cell is one connection of ours with a peer.
type cell struct {
	*testing.T
	w       *world
	level   ours.Level // of our side
	peer    peer
	role    role // of the peer
	setting      // of the peer

	relay *tap.Relay
	held  bool // the relay holds back what the server sends after the handshake
	us    *ours.Stream
	them  talk
}

// fromPeer returns the direction in which the peer sends.
func (c *cell) fromPeer() tap.Direction {
	if c.role == asClient {
		return tap.FromClient
	}
	return tap.FromServer
}

// begin connects both sides, and returns the error of our handshake.
func (c *cell) begin() (err error) {
	c.Helper()
	if c.role == asServer {
		port := testkit.Port(c.T)
		c.them = c.peer.server(c.T, port, c.setting)
		await(c.T, c.peer, port)
		c.relay = tap.Start(c.T, port)
		if c.held {
			c.relay.HoldAfterHandshake()
		}
		c.us, err = ours.Dial(testkit.Bounded(c.T), c.T, c.level, "localhost", c.relay.Port,
			ours.Trust{CA: c.w.ca.File})
		return err
	}
	l := ours.Listen(testkit.Bounded(c.T), c.T, c.level, c.cert.CertFile, c.cert.KeyFile)
	c.relay = tap.Start(c.T, l.Port)
	if c.held {
		c.relay.HoldAfterHandshake()
	}
	come := make(chan error, 1)
	go func() {
		accept := l.Accept
		if c.resume {
			accept = func() (*ours.Stream, error) { return acceptSecond(l) }
		}
		var err error
		c.us, err = accept()
		come <- err
	}()
	c.them = c.peer.client(c.T, c.relay.Port, c.setting)
	return <-come
}

// acceptSecond accepts a client that connects twice, and returns the second connection. The client
// has its ticket before our first handshake returns. So the client may already resume the session
// then, and Accept may return the second connection first.
func acceptSecond(l *ours.Listener) (*ours.Stream, error) {
	first, err := l.Accept()
	if err != nil {
		return nil, err
	}
	again, err := first.S.HandleInfo(first.Ctx, first.H, "resumed")
	if err != nil {
		return nil, err
	}
	var second *ours.Stream
	if again == "1" {
		second = first
		if first, err = l.Accept(); err != nil {
			return nil, err
		}
	}
	if err = endFirst(first); err != nil {
		return nil, fmt.Errorf("the first of two connections fails: %w", err)
	}
	if second == nil {
		second, err = l.Accept()
	}
	return second, err
}

// endFirst serves the first connection of a client that connects twice. The client may send
// something, or end the connection without data.
func endFirst(first *ours.Stream) error {
	first.Read(make([]byte, 1<<10))
	respond(first, nil)
	return first.Close()
}

// connect calls begin, which must succeed, and checks the version of TLS.
func (c *cell) connect() {
	c.Helper()
	if err := c.begin(); err != nil {
		c.Fatalf("our handshake with the peer fails: %v", err)
	}
	if v := c.us.Version(); v != "TLSv"+c.setting.name() {
		c.Errorf("the version is %s, want TLSv%s", v, c.setting.name())
	}
}

// lines returns n bytes of text: lines of digits, which no program takes for a command.
func lines(seed byte, n int) []byte {
	random := rand.NewChaCha8([32]byte{seed})
	text := make([]byte, n)
	random.Read(text)
	for i, b := range text {
		text[i] = '0' + b%10
		if i%64 == 63 || i == n-1 {
			text[i] = '\n'
		}
	}
	return text
}

// exchange sends n bytes each way at the same time, and checks what arrives. If the peer is an
// echo, it sends our bytes back. size is the size of our writes; 0: various sizes.
func (c *cell) exchange(n, size int) {
	c.Helper()
	if t, ok := c.them.(*curlTalk); ok {
		if err := t.serve(c.us, lines(2, n)); err != nil {
			c.Fatal(err)
		}
		return
	}
	if _, ok := c.them.(echo); ok {
		c.all(c.sends("we", c.us, lines(1, n), size), c.receives("we", c.us, lines(1, n)))
		return
	}
	c.all(c.sends("we", c.us, lines(1, n), size), c.receives("the peer", c.them, lines(1, n)),
		c.sends("the peer", c.them, lines(2, n), 1<<15),
		c.receives("we", c.us, lines(2, n)))
}

// The method all runs functions at the same time. If one of them fails, the test ends.
func (c *cell) all(work ...func() error) {
	c.Helper()
	errs := make(chan error, len(work))
	for _, f := range work {
		go func() { errs <- f() }()
	}
	for range work {
		if err := <-errs; err != nil {
			c.Fatal(err) // the cleanup ends the other functions
		}
	}
}

func (c *cell) sends(who string, to io.Writer, text []byte, size int) func() error {
	return func() error {
		sizes := rand.New(rand.NewPCG(1, 2))
		for at := 0; at < len(text); {
			n := size
			if n == 0 {
				n = 1 + sizes.IntN(1<<sizes.IntN(17))
			}
			n = min(n, len(text)-at)
			if _, err := to.Write(text[at : at+n]); err != nil {
				return fmt.Errorf("%s could not write more than %d bytes: %w", who,
					at, err)
			}
			at += n
		}
		return nil
	}
}

func (c *cell) receives(who string, from io.Reader, text []byte) func() error {
	return func() error {
		got := make([]byte, len(text))
		if n, err := io.ReadFull(from, got); err != nil {
			return fmt.Errorf("%s could not read more than %d bytes of %d: %w", who, n,
				len(text), err)
		}
		if !bytes.Equal(got, text) {
			return fmt.Errorf("%s received data that differs from what was sent", who)
		}
		return nil
	}
}

// finish ends the connection, from our side.
func (c *cell) finish() {
	c.Helper()
	if _, ok := c.them.(*curlTalk); ok {
		return // exchange has ended the connection
	}
	if err := c.us.Close(); err != nil {
		c.Errorf("our Close returns %v", err)
	}
	if err := c.them.end(); err != nil {
		c.Errorf("after our Close the peer has not ended cleanly: %v", err)
	}
}

func withCert(kind string) func(*cell) {
	return func(c *cell) {
		c.cert = c.w.certs[kind]
		c.connect()
		c.exchange(bulk, 0)
		c.finish()
	}
}

// If a ticket comes after the client has begun to write, both sides go on. The relay holds the
// ticket back.
func (c *cell) lateTickets() {
	c.held = true
	c.connect()
	if _, ok := c.them.(*curlTalk); ok { // curl sends its request by itself
		c.releaseTickets()
		c.exchange(bulk, 0)
		return
	}
	from, to := io.Writer(c.us), io.Reader(c.them)
	if c.role == asClient {
		from, to = c.them, c.us
	}
	few := lines(3, 20_000) // so little that its echo fits into the sockets
	if _, echoes := c.them.(echo); echoes {
		c.all(c.sends("the client", from, few, 0))
		c.releaseTickets()
		c.all(c.receives("the echo", c.us, few))
	} else {
		c.all(c.sends("the client", from, few, 0), c.receives("the server", to, few))
		c.releaseTickets()
	}
	c.exchange(bulk, 0)
	c.finish()
}

// releaseTickets passes on what the relay has held back. At least one record must come.
func (c *cell) releaseTickets() {
	c.Helper()
	passed := len(c.relay.Records(tap.FromServer))
	c.relay.Release(tap.FromServer)
	if !c.relay.Await(tap.FromServer, testkit.Patience, func(all []tap.Record) bool {
		return len(all) > passed
	}) {
		c.Fatal("the server has sent nothing after the handshake")
	}
}

// On its second connection a client resumes the TLS session of the first.
func (c *cell) resumption() {
	c.resume = true
	c.connect()
	if !c.goesOn() {
		c.Errorf("the session is not resumed: the server has sent %+v",
			c.relay.Records(tap.FromServer))
	}
	c.exchange(bulk, 0)
	c.finish()
}

// goesOn says whether the second connection has resumed the session. In TLS 1.3 the last
// ServerHello says so. In TLS 1.2, if the session is resumed, the server sends no certificate, so
// only small messages come before the change of keys.
func (c *cell) goesOn() bool {
	all := c.relay.Records(tap.FromServer)
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Hello == nil {
			continue
		}
		if c.version == tls.VersionTLS13 {
			return all[i].PSK()
		}
		plain := 0
		for _, r := range all[i:] {
			if r.Type == tap.ChangeCipherSpec {
				break
			}
			plain += r.Len
		}
		return plain < len(c.w.certs["ECDSA"].Cert.Raw)
	}
	return false
}

// fullOfLines is the size of a full record. It is a multiple of 64, the length of a line of the
// data, so each record ends at the end of a line. s_server may print a message between two records.
// The message does not split a line.
const fullOfLines = 1 << 14

// sizeOfKeyUpdate is the size of the record of a KeyUpdate: the header of the message (4 bytes),
// its content (1), the type of the record (1), and the authentication (16).
const sizeOfKeyUpdate = 4 + 1 + 1 + 16

// The peer changes its keys three times in the middle of data, and asks us each time to do the
// same. No data is lost, and we change our keys three times.
func (c *cell) keyUpdate() {
	c.command = true
	c.connect()
	told := c.them.(commander)
	both := func(text []byte) {
		c.Helper()
		c.all(c.sends("the peer", c.them, text, fullOfLines), c.receives("we", c.us, text),
			c.sends("we", c.us, text, fullOfLines),
			c.receives("the peer", c.them, text))
	}
	for round := range 3 {
		text := lines(byte(round), bulk)
		half := len(text) / 2
		both(text[:half])
		if err := told.order(rekey, c.us); err != nil {
			c.Fatalf("the peer cannot be told to send a KeyUpdate: %v", err)
		}
		if !c.relay.Await(c.fromPeer(), testkit.Patience, func(all []tap.Record) bool {
			return updates(all) > round
		}) {
			c.Fatalf("the peer was told to send a KeyUpdate, and has only sent %+v",
				c.relay.Records(c.fromPeer()))
		}
		both(text[half:])
	}
	// After our Read has received a KeyUpdate, our next Write sends ours. In the last round all
	// our Writes may have come before this Read, so one more Write is needed.
	both(lines(4, fullOfLines))
	if got := updates(c.relay.Records(1 - c.fromPeer())); got != 3 {
		c.Errorf("we have sent %d KeyUpdates, want 3", got)
	}
	c.finish()
}

func updates(all []tap.Record) (n int) {
	for _, r := range all {
		if r.Type == tap.ApplicationData && r.Len == sizeOfKeyUpdate {
			n++
		}
	}
	return n
}

// The client sends no key share for the only group of the server. The server asks for one by a
// HelloRetryRequest, and the handshake succeeds.
func (c *cell) helloRetry() {
	if c.role == asServer {
		c.group = "P-384" // our server has the same limit (see picky)
	}
	c.connect()
	if first := c.relay.Records(tap.FromServer)[0]; !first.HRR() {
		c.Errorf("the server's first record is %+v, want a HelloRetryRequest", first)
	}
	c.exchange(bulk, 0)
	c.finish()
}

// Records with one byte of data arrive, in both directions.
func (c *cell) oneByte() {
	const n = 500
	c.most = 1
	c.connect()
	want := c.overhead() + 1
	if p, ok := c.them.(interface{ stdin() io.Writer }); ok {
		// The program sends all bytes that it finds in its input as one record. So the test
		// writes the next byte only after the one before it has passed the relay.
		text := lines(2, 200)
		c.all(func() error {
			for i := range text {
				sent := sizes(c.relay.Records(c.fromPeer()))[want]
				if _, err := p.stdin().Write(text[i : i+1]); err != nil {
					return err
				}
				left :=
					func(all []tap.Record) bool {
						return sizes(all)[want] > sent
					}
				if !c.relay.Await(c.fromPeer(), testkit.Patience, left) {
					return fmt.Errorf("the peer has not sent byte %d in a "+
						"record of its own", i)
				}
			}
			return nil
		}, c.receives("we", c.us, text), c.sends("we", c.us, lines(1, n), 1),
			c.receives("the peer", c.them, lines(1, n)))
	} else {
		c.exchange(n, 1)
	}
	if all := sizes(c.relay.Records(c.fromPeer())); all[want] < 200 {
		c.Errorf("the peer has sent %d records of %d bytes, want 200 or more; the number "+
			"of records by size: %v", all[want], want, all)
	}
	// Now only our side sends much data. The peer would send it in records of one byte, which
	// takes too long.
	c.all(c.sends("we", c.us, lines(1, bulk), 0),
		c.receives("the peer", c.them, lines(1, bulk)))
	c.finish()
}

// overhead is the number of bytes that encryption adds to a record: in TLS 1.3 the type and the
// authentication, in TLS 1.2 with AES-GCM the nonce and the authentication.
func (c *cell) overhead() int {
	if c.version == tls.VersionTLS13 {
		return 1 + 16
	}
	return 8 + 16
}

// sizes counts the records of data by their size.
func sizes(all []tap.Record) map[int]int {
	n := map[int]int{}
	for _, r := range all {
		if r.Type == tap.ApplicationData {
			n[r.Len]++
		}
	}
	return n
}

// largestRecords checks that a side sends full records, of 16 KiB (RFC 8446 section 5.1), and that
// their data arrives.
func (c *cell) largestRecords(d tap.Direction) {
	c.connect()
	c.exchange(bulk, 1<<15)
	if all := sizes(c.relay.Records(d)); all[1<<14+c.overhead()] == 0 {
		c.Errorf("no record has 16 KiB of data; the number of records by size: %v", all)
	}
	c.finish()
}

// After the close_notify of the peer, Read reports the end of the data, and our Writes still
// arrive.
func (c *cell) peerHalfCloses() {
	c.connect()
	c.exchange(1000, 0)
	testkit.Must(c.T, c.them.closeWrite())
	c.readsEnd("we", c.us)
	c.all(c.sends("we", c.us, lines(4, bulk), 0),
		c.receives("the peer", c.them, lines(4, bulk)))
	c.finish()
}

// After tls.Shutdown the peer reads all our data, and then EOF. We still read what the peer sends
// after that, and then EOF. A peer that is an echo sends only what came before our close_notify.
func (c *cell) weHalfClose() {
	c.connect()
	c.exchange(1000, 0)
	n := bulk
	_, echoes := c.them.(echo)
	if echoes {
		n = 20_000 // the echo fits into the sockets
	}
	end := func() error {
		if err := c.sends("we", c.us, lines(4, n), 0)(); err != nil {
			return err
		}
		return c.us.S.Shutdown(c.us.Ctx, c.us.H)
	}
	if echoes {
		c.all(end)
		c.all(c.receives("the echo", c.us, lines(4, n)))
	} else {
		c.all(end, c.receives("the peer", c.them, lines(4, n)))
		c.readsEnd("the peer", c.them)
		c.all(c.sends("the peer", c.them, lines(5, n), 0),
			c.receives("we", c.us, lines(5, n)))
		testkit.Must(c.T, c.them.closeWrite())
	}
	c.readsEnd("we", c.us)
	// Some peers report EOF for a FIN without close_notify, too. So the test checks that our
	// last record is an alert.
	all := c.relay.Records(1 - c.fromPeer())
	if last := all[len(all)-1]; last.Len != 2+c.overhead() {
		c.Errorf("our last record has %d bytes, want an alert, of 2 bytes", last.Len)
	}
	c.finish()
}

// readsEnd checks that a side reads the end of the data.
func (c *cell) readsEnd(who string, from io.Reader) {
	c.Helper()
	if n, err := from.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		c.Fatalf("%s: a Read returns %d bytes and %v, want EOF", who, n, err)
	}
}

// If the peer begins a renegotiation, we refuse it with an alert and send no message of a
// handshake. Later the peer may go on or end the connection.
func (c *cell) renegotiation() {
	c.command = true
	c.connect()
	c.exchange(bulk, fullOfLines)
	theirs := shakes(c.relay.Records(c.fromPeer()))
	own := shakes(c.relay.Records(1 - c.fromPeer()))
	if err := c.them.(commander).order(renegotiate, c.us); err != nil {
		c.Fatalf("the peer cannot be told to renegotiate: %v", err)
	}
	if !c.relay.Await(c.fromPeer(), testkit.Patience, func(all []tap.Record) bool {
		return shakes(all) > theirs
	}) {
		c.Fatal("the peer was told to renegotiate, and has not begun a handshake")
	}
	// Our Read refuses the renegotiation.
	data, err := io.ReadAll(io.LimitReader(c.us, 1))
	// If err is nil, the peer has sent data or a close_notify. Both are allowed.
	if err != nil && !ours.Is(err, client.KindIO) {
		c.Errorf("after the peer began a renegotiation, we read %q, and then %v; want no "+
			"error, or one of kind io", data, err)
	}
	if e := ours.Failure(err); e != nil && !strings.Contains(e.Message,
		"the peer had asked for a renegotiation, which tlsd refuses") {
		c.Errorf("our Read returns %v; want an error that names the renegotiation", err)
	}
	c.Logf("after the refusal we read %d bytes, %v", len(data), err)
	if n := shakes(c.relay.Records(1 - c.fromPeer())); n != own {
		c.Errorf("we have sent %d records of a second handshake, want none", n-own)
	}
	refusal := func(r tap.Record) bool { return r.Type == tap.Alert }
	if !c.relay.Await(1-c.fromPeer(), testkit.Patience, func(all []tap.Record) bool {
		return slices.ContainsFunc(all, refusal)
	}) {
		c.Error("our side has sent no alert to refuse the renegotiation")
	}
	c.us.Close()
	c.them.end() // the peer may report an error now
}

func shakes(all []tap.Record) (n int) {
	for _, r := range all {
		if r.Type == tap.Handshake {
			n++
		}
	}
	return n
}

// If a server asks for a certificate and our client has none, the connection works.
func (c *cell) clientCertOptional() {
	c.ask = "optional"
	c.connect()
	c.exchange(bulk, 0)
	c.finish()
}

// If a server requires a certificate and our client has none, the error has the alert of the server
// and names the cause. In TLS 1.2 the handshake fails. In TLS 1.3 our handshake ends before the
// server refuses, so the first Read fails.
func (c *cell) clientCertRequired() {
	c.ask = "required"
	err := c.begin()
	kind := client.KindHandshake
	if c.version == tls.VersionTLS13 {
		testkit.Must(c.T, err)
		kind = client.KindIO
		_, err = c.us.Read(make([]byte, 1))
	}
	const none = "the server asked for a client certificate, and none is set"
	if !ours.Is(err, kind) || !strings.Contains(err.Error(), "the peer sent the alert ") ||
		!strings.Contains(err.Error(), none) {
		c.Errorf("our call returns %v; want an error of kind %s that names the server's "+
			"alert and its cause", err, kind)
	}
	c.Log(err)
	c.them.end() // ends a server that waits for a further client
}
