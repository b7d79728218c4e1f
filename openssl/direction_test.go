package openssl_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/testkit"
	"tlsd/openssl"
)

// A failed send ends only sending. The peer's data is still read after it, and the peer's alert is
// reported. If a Read meets a protocol error, both directions end.

// writeUntilItFails writes until the system says that the peer is gone.
func writeUntilItFails(t *testing.T, c *openssl.Conn) error {
	t.Helper()
	for {
		n, err := c.Write(bounded(t), make([]byte, 1000))
		if err != nil {
			if n != 0 {
				t.Errorf("a Write that fails has sent %d of 1000 bytes", n)
			}
			return err
		}
	}
}

func systemError(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && (errno == syscall.ECONNRESET || errno == syscall.EPIPE)
}

// certificateRequired returns a client without a certificate, after its handshake with a server
// that demands one. In TLS 1.3 the client's handshake succeeds, and the server's refusal comes
// after it. refused is closed when the server has closed the connection.
func certificateRequired(t *testing.T) (c *openssl.Conn, refused <-chan struct{}) {
	t.Helper()
	l, id := load(t), newIdentity(t)
	ours, peers := tcpPair(t)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		s := tls.Server(peers, &tls.Config{Certificates: []tls.Certificate{id.cert.TLS()},
			ClientAuth: tls.RequireAnyClientCert})
		if err := s.Handshake(); err == nil {
			t.Error("the server accepts a client without a certificate")
		}
		peers.Close()
	}()
	t.Cleanup(func() { <-gone })
	c, err := clientContext(t, l, id.ca.PEM()).NewClient(ours, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Handshake(bounded(t)); err != nil {
		t.Fatal(err)
	}
	return c, gone
}

func TestAlertIsReadAndToldAfterAWriteHasFailed(t *testing.T) {
	t.Parallel()
	const alert = "certificate_required (116)"
	said := func(err error) bool {
		var p *openssl.ProtocolError
		return errors.As(err, &p) && strings.Contains(p.Reason, alert)
	}
	for range 30 {
		c, refused := certificateRequired(t)
		<-refused
		if err := writeUntilItFails(t, c); !systemError(err) {
			t.Fatalf("Write to a peer that has gone: %v, want ECONNRESET or EPIPE", err)
		}
		if _, err := c.Read(bounded(t), make([]byte, 1)); !said(err) {
			t.Fatalf("Read: %v, want the alert %s", err, alert)
		}
		if _, err := c.Write(bounded(t), make([]byte, 1)); !said(err) {
			t.Fatalf("Write after that Read: %v, want the alert %s", err, alert)
		}
		c.Close()
	}
}

func TestAlertIsReadRightAfterAWrite(t *testing.T) {
	t.Parallel()
	for range 30 {
		c, _ := certificateRequired(t)
		_, _ = c.Write(bounded(t), []byte("request")) // it may fail or succeed
		if _, err := c.Read(bounded(t), make([]byte, 1)); err == nil ||
			!strings.Contains(err.Error(), "certificate_required (116)") {
			t.Fatalf("Read: %v, want the alert certificate_required (116)", err)
		}
		c.Close()
	}
}

// A server may refuse a long request before it has read all of it: it answers, and closes. When the
// rest of the request arrives, the server's system resets the connection.
func TestEarlyAnswerIsReadAfterAWriteHasFailed(t *testing.T) {
	t.Parallel()
	answer := bytes.Repeat([]byte("413 Content Too Large\n"), 2000)
	for _, notified := range []bool{true, false} {
		forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
			if _, err := peer.Write(answer); err != nil {
				t.Fatal(err)
			}
			if notified {
				if err := peer.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			nc := peer.NetConn().(*net.TCPConn)
			untilTaken(t, nc) // the reset drops what is still on its way
			_ = nc.SetLinger(0)
			nc.Close()
			first := writeUntilItFails(t, c)
			if !systemError(first) {
				t.Fatalf("Write to a peer that has gone: %v, want ECONNRESET or "+
					"EPIPE", first)
			}
			got, err := io.ReadAll(stream{bounded(t), c})
			if !bytes.Equal(got, answer) {
				t.Fatalf("%d of %d bytes of the answer were read, then %v",
					len(got), len(answer), err)
			}
			switch {
			case notified && err != nil:
				t.Errorf("after the answer and close_notify: %v, want EOF", err)
			case !notified && !systemError(err):
				t.Errorf("after the answer: %v, want ECONNRESET or EPIPE", err)
			}
			if _, err := c.Write(bounded(t), []byte("x")); err != first {
				t.Errorf("Write after that: %v, want %v again", err, first)
			}
		})
	}
}

// untilTaken returns when the system of the other end has all sent data.
func untilTaken(t *testing.T, nc *net.TCPConn) {
	t.Helper()
	raw, err := nc.SyscallConn()
	testkit.Must(t, err)
	testkit.Until(t, "the other end has all data", func() bool {
		left := -1
		_ = raw.Control(func(fd uintptr) { left = openssl.Unacknowledged(fd) })
		return left == 0
	})
}

func TestEveryWriteAfterAResetFails(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		_ = peer.NetConn().(*net.TCPConn).SetLinger(0)
		peer.NetConn().Close()
		// Close returns when the reset is sent. On a busy machine it arrives later.
		testkit.Until(t, "the reset has arrived",
			func() bool { return openssl.WasReset(c) })
		for i := range 20 {
			if n, err := c.Write(bounded(t), []byte("heartbeat")); n != 0 ||
				!systemError(err) {
				t.Fatalf("Write %d after the reset: %d, %v; want 0 and ECONNRESET "+
					"or EPIPE", i, n, err)
			}
		}
	})
}

// stall starts a Write, and returns when the Write waits for room in the socket. The channel gets
// the Write's error.
func stall(t *testing.T, c *openssl.Conn, size int) <-chan error {
	t.Helper()
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(bounded(t), pattern(size))
		wrote <- err
	}()
	waitForRoom(t, c)
	return wrote
}

// waitForRoom returns when a Write or CloseWrite of c waits for room in the socket.
func waitForRoom(t *testing.T, c *openssl.Conn) {
	t.Helper()
	for end := bounded(t); !openssl.WaitsForRoom(c); runtime.Gosched() {
		if end.Err() != nil {
			t.Fatal("no Write or CloseWrite waits for room in the socket")
		}
	}
}

// pattern is data that shows every loss and every wrong order.
func pattern(size int) []byte {
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return p
}

// A cancelled Write returns how many bytes of data are in the records that were sent whole. A
// record that was sent in part does not count.
func TestWriteThatIsGivenUpKnowsWhatHasLeft(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		ctx, cancel := context.WithCancel(bounded(t))
		var n int
		wrote := make(chan error, 1)
		go func() {
			var err error
			n, err = c.Write(ctx, pattern(size))
			wrote <- err
		}()
		waitForRoom(t, c)
		cancel()
		if err := <-wrote; !errors.Is(err, context.Canceled) {
			t.Fatal("the Write that was cancelled, want context.Canceled: ", err)
		}
		got := make([]byte, n)
		if m, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, pattern(n)) {
			t.Errorf("the peer has got %d of the %d bytes that the Write has counted, "+
				"or other bytes: %v", m, n, err)
		}
		go c.Close()
		if more, _ := io.ReadAll(peer); len(more) != 0 {
			t.Errorf("the peer has got %d bytes more than the Write has counted",
				len(more))
		}
	})
}

// The answer to a KeyUpdate is sent between two records of the Write that waits.
func TestKeyUpdateIsAnsweredWhileAWriteWaits(t *testing.T) {
	t.Parallel()
	const size = 16 << 20 // more than the system's buffers hold
	c, peer, f := connectForged(t)
	wrote := stall(t, c, size)
	for i := range 5 {
		f.keyUpdate(t)
		f.send(t, applicationRecord, []byte{'0' + byte(i)})
		expectRead(t, c, string('0'+rune(i)))
	}
	got := make([]byte, size)
	n, err := io.ReadFull(peer, got)
	if err != nil || !bytes.Equal(got, pattern(size)) {
		t.Errorf("the peer has got %d of %d bytes, %v; the bytes that came are "+
			"right: %t", n, size, err, bytes.Equal(got[:n], pattern(size)[:n]))
	}
	if err := <-wrote; err != nil {
		t.Errorf("Write: %v", err)
	}
	if _, err := c.Write(bounded(t), []byte("more")); err != nil {
		t.Error(err)
	}
	expectFromClient(t, peer, "more")
}

// A peer sends KeyUpdates for ever, and reads no answer. When too many answers wait in memory, the
// connection fails.
func TestPeerThatAsksForEverAndReadsNothingIsGivenUp(t *testing.T) {
	t.Parallel()
	c, _, f := connectForged(t)
	wrote := stall(t, c, 64<<20)
	read := make(chan error, 1)
	go func() {
		_, err := c.Read(bounded(t), make([]byte, 1))
		read <- err
	}()
	asked := make(chan struct{})
	defer func() { c.Close(); <-asked }()
	go func() {
		defer close(asked)
		for f.tryKeyUpdate(t) == nil { // until we close
		}
	}()
	err := <-read
	var p *openssl.ProtocolError
	if !errors.As(err, &p) {
		t.Errorf("Read: %v, want a ProtocolError", err)
	}
	if again := <-wrote; again != err {
		t.Errorf("the Write that waits: %v, want the error of the Read, %v", again, err)
	}
}

// The peer sends a record that is not encrypted. A Read meets the record and fails, and so does the
// Write that waits.
func TestWriteThatWaitsEndsWithTheConnection(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		wrote := stall(t, c, 64<<20)
		if _, err := peer.NetConn().Write(append([]byte("\x17\x03\x03\x00\x40"),
			make([]byte, 0x40)...)); err != nil {
			t.Fatal(err)
		}
		_, err := c.Read(bounded(t), make([]byte, 1))
		var p *openssl.ProtocolError
		if !errors.As(err, &p) {
			t.Fatalf("Read: %v, want a ProtocolError", err)
		}
		if again := <-wrote; again != err {
			t.Errorf("the Write that waits: %v, want the error of the Read, %v", again,
				err)
		}
		if _, again := c.Write(bounded(t), []byte("x")); again != err {
			t.Errorf("the next Write: %v, want %v", again, err)
		}
	})
}

func TestCloseWriteThatWaitsEndsWithTheConnection(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		_ = peer.NetConn().(*net.TCPConn).SetReadBuffer(128 << 10)
		openssl.FillSocket(bounded(t), t, c)
		shut := make(chan error, 1)
		go func() { shut <- c.CloseWrite(bounded(t)) }()
		waitForRoom(t, c)
		_, _ = peer.NetConn().Write(append([]byte("\x17\x03\x03\x00\x40"),
			make([]byte, 0x40)...))
		_, err := c.Read(bounded(t), make([]byte, 1))
		var p *openssl.ProtocolError
		if !errors.As(err, &p) {
			t.Fatalf("Read: %v, want a ProtocolError", err)
		}
		if again := <-shut; again != err {
			t.Errorf("CloseWrite: %v, want the error of the Read, %v", again, err)
		}
	})
}

// If the caller cancels a Write, a Read that waits goes on, because the peer may send more data.
func TestReadThatWaitsOutlivesAWriteThatIsGivenUp(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		read := make(chan error, 1)
		go func() {
			buf := make([]byte, 10)
			n, err := c.Read(bounded(t), buf)
			if err == nil && string(buf[:n]) != "hello" {
				err = errors.New(string(buf[:n]))
			}
			read <- err
		}()
		ctx, cancel := context.WithCancel(bounded(t))
		go func() {
			_, _ = peer.Read(make([]byte, 1))
			cancel()
		}()
		if _, err := c.Write(ctx, make([]byte, 64<<20)); !errors.Is(err, context.Canceled) {
			t.Fatal("the Write that was cancelled, want context.Canceled: ", err)
		}
		if _, err := peer.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := <-read; err != nil {
			t.Errorf("the Read of \"hello\" ends with %v", err)
		}
	})
}
