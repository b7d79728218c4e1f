package tap_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/tap"
	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
)

// pair makes a connection of crypto/tls through the relay r. c is the client's end, and s the
// server's. The functions in prepare are called with the relay before the client connects.
func pair(t *testing.T, server, client *tls.Config, prepare ...func(*tap.Relay)) (r *tap.Relay, c,
	s *tls.Conn) {
	t.Helper()
	ca := testcert.NewCA(t, "CA")
	server.Certificates = []tls.Certificate{ca.Issue(t,
		testcert.Leaf{DNS: []string{"localhost"}}).TLS()}
	return pairOf(t, ca, server, client, prepare...)
}

// pairOf is pair for a server that has a certificate already, which ca has issued.
func pairOf(t *testing.T, ca *testcert.CA, server, client *tls.Config,
	prepare ...func(*tap.Relay)) (r *tap.Relay, c, s *tls.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	client.RootCAs, client.ServerName = ca.Pool(), "localhost"
	accepted := make(chan *tls.Conn, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			accepted <- nil
			return
		}
		nc.SetDeadline(time.Now().Add(testkit.Patience))
		s := tls.Server(nc, server)
		s.Handshake() // no check: if it fails, the next call on s returns its error
		accepted <- s
	}()
	r = tap.Start(t, l.Addr().(*net.TCPAddr).Port)
	for _, f := range prepare {
		f(r)
	}
	c, err = tls.DialWithDialer(&net.Dialer{Timeout: testkit.Patience}, "tcp",
		net.JoinHostPort("127.0.0.1", itoa(r.Port)), client)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(testkit.Patience))
	s = <-accepted
	t.Cleanup(func() { c.Close(); s.Close() })
	return r, c, s
}

func itoa(n int) string { return strings.TrimPrefix((&net.TCPAddr{Port: n}).String(), ":") }

// The relay passes all records on unchanged, and notes their types.
func TestRecordsPassAndAreSeen(t *testing.T) {
	t.Parallel()
	r, c, s := pair(t, &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP384}},
		&tls.Config{})
	if retry := r.Records(tap.FromServer)[0]; !retry.HRR() || retry.Type != tap.Handshake {
		t.Errorf("the first record of a server that wants another group is %+v; want a "+
			"HelloRetryRequest", retry)
	}
	before := len(r.Records(tap.FromClient))
	go c.Write(make([]byte, 1<<14))
	if _, err := io.ReadFull(s, make([]byte, 1<<14)); err != nil {
		t.Fatal(err)
	}
	largest := 0
	for _, rec := range r.Records(tap.FromClient)[before:] {
		largest = max(largest, rec.Len)
		if rec.Type != tap.ApplicationData || rec.HRR() {
			t.Errorf("the client has sent data, and the relay notes the record %+v; "+
				"want application data", rec)
		}
	}
	if largest == 0 {
		t.Error("the client has sent data, and the relay has noted no record with bytes")
	}
	c.Close()
	if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the client's close_notify the server reads %d bytes, %v; want 0, "+
			"EOF", n, err)
	}
}

// Between Hold and Release, no record passes. Records has only records that have passed.
func TestWhatIsHeldPassesWhenItIsReleased(t *testing.T) {
	t.Parallel()
	r, c, s := pair(t, &tls.Config{}, &tls.Config{})
	r.Hold(tap.FromClient)
	passed := len(r.Records(tap.FromClient))
	c.Write([]byte("held"))
	s.NetConn().SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := s.NetConn().Read(make([]byte, 1)); err == nil {
		t.Error("data has passed between Hold and Release")
	}
	s.NetConn().SetReadDeadline(time.Now().Add(testkit.Patience))
	if n := len(r.Records(tap.FromClient)); n != passed {
		t.Errorf("Records has %d records, but only %d have passed", n, passed)
	}
	r.Release(tap.FromClient)
	buf := make([]byte, 4)
	if _, err := io.ReadFull(s, buf); err != nil || string(buf) != "held" {
		t.Errorf("after Release, the server reads %q, %v; want held", buf, err)
	}
	if !r.Await(tap.FromClient, testkit.Patience,
		func(all []tap.Record) bool { return len(all) > passed }) {
		t.Error("Await is false for a record that has passed")
	}
	if r.Await(tap.FromClient, time.Millisecond, func([]tap.Record) bool { return false }) {
		t.Error("Await is true for records that never come")
	}
}

// Spoil damages a record, so that its receiver refuses it.
func TestASpoiledRecordIsRefused(t *testing.T) {
	t.Parallel()
	r, c, s := pair(t, &tls.Config{}, &tls.Config{})
	r.Spoil(tap.FromClient)
	c.Write([]byte("spoiled"))
	if n, err := s.Read(make([]byte, 10)); n != 0 || err == nil ||
		!strings.Contains(err.Error(), "bad record MAC") {
		t.Errorf("the server reads %d bytes, %v of a spoiled record; want \"bad record "+
			"MAC\"", n, err)
	}
}

// The relay passes on a FIN as a FIN, and a reset as a reset.
func TestEndsPassAsTheyAre(t *testing.T) {
	t.Parallel()
	_, c, s := pair(t, &tls.Config{}, &tls.Config{})
	c.NetConn().Close()
	if n, err := s.NetConn().Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the client's FIN, the server reads %d bytes, %v; want EOF", n, err)
	}
	_, c, s = pair(t, &tls.Config{}, &tls.Config{})
	c.NetConn().(*net.TCPConn).SetLinger(0)
	c.NetConn().Close()
	if n, err := s.NetConn().Read(make([]byte, 1)); n != 0 ||
		!errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the client's reset, the server reads %d bytes, %v; want ECONNRESET",
			n, err)
	}
}

// PSK says whether a ServerHello resumes a session.
func TestAResumedSessionIsSeen(t *testing.T) {
	t.Parallel()
	client := &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	server := &tls.Config{}
	server.SetSessionTicketKeys([][32]byte{{1}})
	ca := testcert.NewCA(t, "CA")
	server.Certificates = []tls.Certificate{ca.Issue(t,
		testcert.Leaf{DNS: []string{"localhost"}}).TLS()}
	for _, resumed := range []bool{false, true} {
		r, c, s := pairOf(t, ca, server, client)
		go s.Write([]byte{1})
		// Before the byte, c reads the session ticket, which the next client needs.
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if got := r.Records(tap.FromServer)[0].PSK(); got != resumed ||
			c.ConnectionState().DidResume != resumed {
			t.Errorf("PSK says %v, crypto/tls says %v; want %v", got,
				c.ConnectionState().DidResume, resumed)
		}
	}
}

// HoldAfterHandshake lets the handshake pass. Later records of the server wait for Release.
func TestTheServerIsHeldAfterTheHandshake(t *testing.T) {
	t.Parallel()
	r, c, s := pair(t, &tls.Config{}, &tls.Config{}, (*tap.Relay).HoldAfterHandshake)
	passed := len(r.Records(tap.FromServer))
	go s.Write([]byte{1})
	c.NetConn().SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := c.NetConn().Read(make([]byte, 1)); err == nil {
		t.Error("data of the server has passed before Release")
	}
	if n := len(r.Records(tap.FromServer)); n != passed {
		t.Errorf("%d records have passed after the handshake; want none before Release",
			n-passed)
	}
	r.Release(tap.FromServer)
	if !r.Await(tap.FromServer, testkit.Patience,
		func(all []tap.Record) bool { return len(all) > passed }) {
		t.Error("data has not passed after Release")
	}
}
