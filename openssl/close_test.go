package openssl_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/testkit"
	"tlsd/openssl"
)

func TestCloseSendsCloseNotifyOnce(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := c.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		}
		if n, err := peer.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("the peer reads %d bytes, %v, want 0 and EOF", n, err)
		}
		wg.Wait()
		if _, err := c.Read(bounded(t), make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read after Close: %v, want net.ErrClosed", err)
		}
		if _, err := c.Write(bounded(t), make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write after Close: %v, want net.ErrClosed", err)
		}
		if err := c.Handshake(bounded(t)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Handshake after Close: %v, want net.ErrClosed", err)
		}
	})
}

func TestCloseEndsWaitingCalls(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, _ *tls.Conn) {
		started := make(chan struct{}, 4)
		errc := make(chan error, 4)
		// Of two Reads, one waits for the socket, the other for its turn. So do two Writes.
		for range 2 {
			go func() {
				started <- struct{}{}
				_, err := c.Read(bounded(t), make([]byte, 1))
				errc <- err
			}()
			go func() {
				started <- struct{}{}
				_, err := c.Write(bounded(t), make([]byte, 64<<20))
				errc <- err
			}()
		}
		for range 4 {
			<-started
		}
		// Most of these calls now wait. A call that begins after Close fails in the same
		// way.
		time.Sleep(10 * time.Millisecond)
		c.Close()
		for range 4 {
			if err := <-errc; !errors.Is(err, net.ErrClosed) {
				t.Errorf("a waiting call: %v, want net.ErrClosed", err)
			}
		}
	})
}

func TestCloseEndsWaitingHandshake(t *testing.T) {
	t.Parallel()
	for _, s := range setups {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			c, _ := s.pair(t)
			errc := make(chan error, 1)
			go func() { errc <- c.Handshake(bounded(t)) }()
			time.Sleep(5 * time.Millisecond)
			c.Close()
			if err := <-errc; !errors.Is(err, net.ErrClosed) {
				t.Errorf("Handshake: %v, want net.ErrClosed", err)
			}
		})
	}
}

func TestCloseBeforeTheHandshakeSaysNothing(t *testing.T) {
	t.Parallel()
	for _, s := range setups {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			c, peer := s.pair(t)
			c.Close()
			if got, err := io.ReadAll(peer.NetConn()); len(got) != 0 || err != nil {
				t.Errorf("after Close the peer has got %q, %v; want no bytes and "+
					"no error", got, err)
			}
		})
	}
}

// Even if the peer reads nothing, Close ends at its time limit, or with its context. This holds
// before close_notify is sent, and afterwards.
func TestCloseIsBounded(t *testing.T) {
	t.Parallel()
	l, id := load(t), newIdentity(t)
	for name, fill := range map[string]func(*testing.T, *openssl.Conn, *net.TCPConn){
		"no room for close_notify": func(t *testing.T, _ *openssl.Conn, nc *net.TCPConn) {
			// The data does not come from the SSL, so the SSL has no half-sent record.
			_ = nc.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			if n, err := nc.Write(make([]byte, 64<<20)); !errors.Is(
				err, os.ErrDeadlineExceeded) {
				t.Errorf("the peer does not read, and the socket has taken %d "+
					"bytes, %v; want the deadline to pass, because the socket "+
					"is full", n, err)
			}
			// The Write has ended although the buffer has some room: a socket is
			// "writable" only when much of its buffer is free. The loop fills the rest.
			raw, err := nc.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			_ = raw.Control(func(fd uintptr) {
				for err = nil; err == nil; {
					_, err = syscall.Write(int(fd), make([]byte, 1000))
				}
			})
			if err != syscall.EAGAIN {
				t.Error("the socket is not full, want EAGAIN: ", err)
			}
		},
		"data that is not taken": func(t *testing.T, c *openssl.Conn, _ *net.TCPConn) {
			for range 40 { // 640 KiB
				if _, err := c.Write(bounded(t), make([]byte, 16<<10)); err != nil {
					t.Error(err)
				}
			}
		},
		"half a record": func(t *testing.T, c *openssl.Conn, _ *net.TCPConn) {
			ctx, cancel := context.WithTimeout(context.Background(),
				100*time.Millisecond)
			defer cancel()
			if _, err := c.Write(ctx, make([]byte, 64<<20)); err == nil {
				t.Error("a Write of 64 MiB succeeds, although the peer does not " +
					"read")
			}
		},
	} {
		for way, end := range map[string]func(*openssl.Conn){
			"by itself": func(c *openssl.Conn) { c.Close() },
			"by a context that ends": func(c *openssl.Conn) {
				ctx, cancel := context.WithCancel(context.Background())
				time.AfterFunc(20*time.Millisecond, cancel)
				c.CloseContext(ctx)
			},
			"by a context that has ended": func(c *openssl.Conn) {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				c.CloseContext(ctx)
			},
		} {
			t.Run(name+", "+way, func(t *testing.T) {
				t.Parallel()
				ours, peers := tcpPair(t)
				_ = peers.SetReadBuffer(4 << 10)
				peer := tls.Server(peers,
					&tls.Config{Certificates: []tls.Certificate{id.cert.TLS()}})
				c, err := clientContext(t, l, id.ca.PEM()).NewClient(ours,
					"localhost")
				if err != nil {
					t.Fatal(err)
				}
				errc := make(chan error, 1)
				go func() { errc <- peer.Handshake() }()
				if err := errors.Join(c.Handshake(bounded(t)), <-errc); err != nil {
					t.Fatal(err)
				}
				fill(t, c, ours)
				begun := time.Now()
				end(c)
				if d := time.Since(begun); d > time.Minute {
					t.Errorf("Close took %v: it has waited for a peer that "+
						"does not read", d)
				}
			})
		}
	}
}

// Data that was written before the close arrives, although the peer has sent data that nobody has
// read. If a socket with unread data is closed, the system discards the data that is not yet sent.
func TestCloseLosesNothingThatWasWritten(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		finish func(*openssl.Conn, context.Context) error
	}{
		{"CloseContext", (*openssl.Conn).CloseContext},
		{"CutContext", (*openssl.Conn).CutContext},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
				losesNothing(t, c, peer, tt.finish)
			})
		})
	}
}

func losesNothing(t *testing.T, c *openssl.Conn, peer *tls.Conn,
	finish func(*openssl.Conn, context.Context) error) {
	for range 20 {
		if _, err := peer.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	go func() {
		if _, err := c.Write(bounded(t), data); err != nil {
			t.Error(err)
		}
		finish(c, bounded(t))
	}()
	// The peer is slow, and goes on sending. If the stream ends between two records,
	// crypto/tls reports io.EOF, with or without close_notify. So io.EOF is right for both
	// ways to finish.
	var got []byte
	buf := make([]byte, 10_000)
	for {
		n, err := peer.Read(buf)
		got = append(got, buf[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("the peer has read %d of %d bytes, and then %v", len(got),
				len(data), err)
		}
		time.Sleep(time.Millisecond)
		_, _ = peer.Write(make([]byte, 10))
	}
	if !bytes.Equal(got, data) {
		t.Errorf("the peer has got %d bytes, want exactly the %d bytes that were written",
			len(got), len(data))
	}
}

// In the middle of a handshake message from the peer OpenSSL sends no close_notify. Even then the
// data that was written before arrives.
func TestCloseInTheMiddleOfAMessageLosesNothingThatWasWritten(t *testing.T) {
	t.Parallel()
	c, peer, f := connectForged(t)
	data := pattern(320_000)
	if _, err := c.Write(bounded(t), data); err != nil { // the peer does not read it yet
		t.Fatal(err)
	}
	ticket := newSessionTicket()
	f.readPart(t, c, ticket[:len(ticket)/2])
	f.send(t, applicationRecord, []byte("nobody reads this"))
	closed := make(chan error, 1)
	go func() { closed <- c.CloseContext(bounded(t)) }()
	// The peer begins to read when Close has decided how it closes the socket.
	testkit.Until(t, "Close frees the SSL", func() bool { return openssl.Freed(c) })
	got, err := io.ReadAll(peer)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("the peer has got %d bytes, %v; want exactly the %d bytes that were "+
			"written", len(got), err, len(data))
	}
	testkit.Must(t, testkit.Receive(t, closed, "Close to return"))
}

// When a bundle and the contexts are freed, the connections that they have made still work. No new
// connection can be made. A second Free does nothing.
func TestConnectionsOutliveTheirContext(t *testing.T) {
	t.Parallel()
	l, id := load(t), newIdentity(t)
	bundle, err := l.ParseCABundle("ca.pem", id.ca.PEM())
	if err != nil {
		t.Fatal(err)
	}
	cctx, err := l.NewClientContext(bundle)
	if err != nil {
		t.Fatal(err)
	}
	sctx, err := l.NewServerContext(id.cert.CertPEM, id.cert.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	a, b := tcpPair(t)
	s, err := sctx.NewServer(a)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := cctx.NewClient(b, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	bundle.Free()
	bundle.Free()
	cctx.Free()
	cctx.Free()
	sctx.Free()
	errc := make(chan error, 1)
	go func() { errc <- s.Handshake(bounded(t)) }()
	if err := errors.Join(c.Handshake(bounded(t)), <-errc); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(bounded(t), []byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := s.Read(bounded(t), make([]byte, 1)); err != nil {
		t.Error(err)
	}

	if _, err := l.NewClientContext(bundle); err == nil {
		t.Error("NewClientContext succeeds with a bundle that is freed")
	}
	a, b = tcpPair(t)
	if _, err := cctx.NewClient(a, "localhost"); !errors.Is(err, openssl.ErrFreed) {
		t.Errorf("NewClient after Free: %v, want ErrFreed", err)
	}
	if _, err := sctx.NewServer(b); !errors.Is(err, openssl.ErrFreed) {
		t.Errorf("NewServer after Free: %v, want ErrFreed", err)
	}
}
