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

// pair makes a connection of crypto/tls through a relay.
func pair(t *testing.T, server, client *tls.Config, first ...func(*tap.Relay)) (r *tap.Relay, c,
	s *tls.Conn) {
	t.Helper()
	ca := testcert.NewCA(t, "CA")
	server.Certificates = []tls.Certificate{ca.Issue(t,
		testcert.Leaf{DNS: []string{"localhost"}}).TLS()}
	return pairOf(t, ca, server, client, first...)
}

func pairOf(t *testing.T, ca *testcert.CA, server, client *tls.Config, first ...func(*tap.Relay)) (
	r *tap.Relay, c, s *tls.Conn) {
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
		s.Handshake() // the next call returns the same error
		accepted <- s
	}()
	r = tap.Start(t, l.Addr().(*net.TCPAddr).Port)
	for _, f := range first {
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

func TestRecordsPassAndAreSeen(t *testing.T) {
	t.Parallel()
	r, c, s := pair(t, &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP384}},
		&tls.Config{})
	if retry := r.Records(tap.FromServer)[0]; !retry.HRR() || retry.Type != tap.Handshake {
		t.Errorf("the first record of a server that wants another group is %+v", retry)
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
			t.Errorf("data passes as %+v", rec)
		}
	}
	if largest == 0 {
		t.Error("no record was seen")
	}
	c.Close()
	if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the client's end the server reads %d, %v", n, err)
	}
}

func TestWhatIsHeldPassesWhenItIsReleased(t *testing.T) {
	t.Parallel()
	r, c, s := pair(t, &tls.Config{}, &tls.Config{})
	r.Hold(tap.FromClient)
	passed := len(r.Records(tap.FromClient))
	c.Write([]byte("held"))
	s.NetConn().SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := s.NetConn().Read(make([]byte, 1)); err == nil {
		t.Error("it has passed")
	}
	s.NetConn().SetReadDeadline(time.Now().Add(testkit.Patience))
	if n := len(r.Records(tap.FromClient)); n != passed {
		t.Errorf("Records has %d records, and %d have passed", n, passed)
	}
	r.Release(tap.FromClient)
	buf := make([]byte, 4)
	if _, err := io.ReadFull(s, buf); err != nil || string(buf) != "held" {
		t.Errorf("%q, %v", buf, err)
	}
	if !r.Await(tap.FromClient, testkit.Patience,
		func(all []tap.Record) bool { return len(all) > passed }) {
		t.Error("Await does not see the record")
	}
	if r.Await(tap.FromClient, time.Millisecond, func([]tap.Record) bool { return false }) {
		t.Error("Await is true for records that never come")
	}
}

func TestASpoiledRecordIsRefused(t *testing.T) {
	t.Parallel()
	r, c, s := pair(t, &tls.Config{}, &tls.Config{})
	r.Spoil(tap.FromClient)
	c.Write([]byte("spoiled"))
	if n, err := s.Read(make([]byte, 10)); n != 0 || err == nil ||
		!strings.Contains(err.Error(), "bad record MAC") {
		t.Errorf("the server reads %d bytes, %v", n, err)
	}
}

func TestEndsPassAsTheyAre(t *testing.T) {
	t.Parallel()
	_, c, s := pair(t, &tls.Config{}, &tls.Config{})
	c.NetConn().Close()
	if n, err := s.NetConn().Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after a FIN: %d, %v", n, err)
	}
	_, c, s = pair(t, &tls.Config{}, &tls.Config{})
	c.NetConn().(*net.TCPConn).SetLinger(0)
	c.NetConn().Close()
	if n, err := s.NetConn().Read(make([]byte, 1)); n != 0 ||
		!errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset: %d, %v", n, err)
	}
}

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
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil { // and the ticket
			t.Fatal(err)
		}
		if got := r.Records(tap.FromServer)[0].PSK(); got != resumed ||
			c.ConnectionState().DidResume != resumed {
			t.Errorf("seen: %v, crypto/tls: %v; want %v", got,
				c.ConnectionState().DidResume, resumed)
		}
	}
}

func TestTheServerIsHeldAfterTheHandshake(t *testing.T) {
	t.Parallel()
	r, c, s := pair(t, &tls.Config{}, &tls.Config{}, (*tap.Relay).HoldAfterHandshake)
	passed := len(r.Records(tap.FromServer))
	go s.Write([]byte{1})
	c.NetConn().SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := c.NetConn().Read(make([]byte, 1)); err == nil {
		t.Error("something has passed")
	}
	if n := len(r.Records(tap.FromServer)); n != passed {
		t.Errorf("%d records have passed after the handshake", n-passed)
	}
	r.Release(tap.FromServer)
	if !r.Await(tap.FromServer, testkit.Patience,
		func(all []tap.Record) bool { return len(all) > passed }) {
		t.Error("data has not passed after Release")
	}
}
