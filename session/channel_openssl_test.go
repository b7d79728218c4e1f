package session_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/fakeengine"
	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/openssl"
	"tlsd/session"
)

// Data channels over the real OpenSSL, with Go's TLS as the peer.

var realLibrary = sync.OnceValues(func() (*openssl.Library, error) {
	return openssl.Load(os.Getenv("TLSD_TEST_LIBSSL"))
})

// newRealRig makes a rig whose engine is the real OpenSSL.
func newRealRig(t *testing.T, set ...func(*fakeengine.Engine, *session.Config)) *rig {
	t.Helper()
	lib, err := realLibrary()
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, append(set, func(_ *fakeengine.Engine, c *session.Config) {
		c.Engine = session.OpenSSL(lib)
	})...)
	r.ok(r.SetCaBundle(r.ca.File))
	return r
}

// serveTLS starts a server with the configuration cfg, which calls f with each connection. Unlike
// serve, it leaves the handshake to f.
func (r *rig) serveTLS(cfg *tls.Config, f func(*tls.Conn, *net.TCPConn)) int {
	cfg.Certificates = []tls.Certificate{r.cert.TLS()}
	return testkit.Serve(r.t, func(nc net.Conn) {
		nc.SetDeadline(time.Now().Add(testkit.Patience))
		f(tls.Server(cutConn{nc}, cfg), nc.(*net.TCPConn))
	})
}

func TestOpenSSLsBytesGoBothWaysAtOnce(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	const size = 16 << 20
	there, back := random(size), bytes.Repeat([]byte("0123456789abcdef"), size/16)
	got := make(chan []byte, 1)
	h, c := r.channel(r.serve(func(c *tls.Conn, _ *net.TCPConn) {
		var work sync.WaitGroup
		defer work.Wait()
		work.Go(func() {
			c.Write(back)
			c.CloseWrite()
		})
		b, _ := io.ReadAll(c)
		got <- b
	}))
	go func() {
		c.Write(there)
		c.CloseWrite()
	}()
	if b := rest(t, c); !bytes.Equal(b, back) {
		t.Errorf("the caller has got %d bytes, which differ from the bytes that the "+
			"peer has sent", len(b))
	}
	if b := <-got; !bytes.Equal(b, there) {
		t.Errorf("the peer has got %d bytes, which differ from the bytes that the "+
			"caller has sent", len(b))
	}
	r.ok(r.Shutdown(h)) // waits until the out pump has ended, which may be after the peer's end
	if st := r.status(h); st.Sent != size || st.Received != size || st.Read != "end" ||
		st.Write != "shut" {
		t.Errorf("the status is %+v, want all bytes sent and received, Read end and "+
			"Write shut", st)
	}
	r.ok(r.Close(h))
}

// TestACertificateThatIsRequiredIsTold: the server wants a client certificate, sends an alert and
// resets the connection. A program that writes and then reads gets the alert every time, although
// its own Write may fail first.
func TestACertificateThatIsRequiredIsTold(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string]bool{"on a channel": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRealRig(t)
			demanding := &tls.Config{ClientAuth: tls.RequireAnyClientCert,
				MinVersion: tls.VersionTLS13}
			port := r.serveTLS(demanding,
				func(c *tls.Conn, _ *net.TCPConn) { c.Handshake() })
			for range 30 {
				h := r.handle(r.NewClient("localhost", port))
				const alert = "certificate_required (116)"
				if plain {
					r.ok(r.Handshake(h))
					// this Write may fail
					r.start(r.Write(h, random(100000))).wait()
					r.failsWith(r.Read(h, 10), kind.IO, alert)
					r.failsWith(r.Write(h, []byte("x")), kind.IO, alert)
					r.ok(r.Close(h))
					continue
				}
				c, worker := pair(t)
				r.ok(r.Session.Handshake(h, worker))
				c.Write(random(100000))
				rest(t, c)
				unsendable(t, c)
				st := r.status(h)
				for _, e := range []*session.Error{st.ReadError, st.WriteError} {
					if e == nil || !strings.Contains(e.Why, alert) {
						t.Errorf("the status is %+v with the error %v, "+
							"want the alert in ReadError and "+
							"WriteError", st, e)
					}
				}
				r.ok(r.Close(h))
			}
		})
	}
}

// TestAnAnswerBeforeAResetIsRead: the peer answers and resets the connection while the caller still
// writes. The caller gets the answer every time.
func TestAnAnswerBeforeAResetIsRead(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	port := r.serve(func(c *tls.Conn, nc *net.TCPConn) {
		io.ReadFull(c, make([]byte, 10))
		c.Write([]byte("413 too large"))
		nc.Close() // resets the connection, because data is unread
	})
	for range 30 {
		h, c := r.channel(port)
		send(t, c, random(10))
		go c.Write(random(4 << 20))
		if got := string(rest(t, c)); got != "413 too large" {
			t.Errorf("the caller has got %q, want \"413 too large\"", got)
		}
		unsendable(t, c)
		if st := r.status(h); st.Read != "failed" || st.Write != "failed" ||
			st.WriteError.Kind != kind.IO {
			t.Errorf("the status is %+v, want Read and Write failed, and a "+
				"WriteError of kind io", st)
		}
		r.ok(r.Close(h))
	}
}

func TestOpenSSLNoticesAResetAfterCloseNotify(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	reset := make(chan struct{})
	h, c := r.channel(r.serve(func(c *tls.Conn, nc *net.TCPConn) {
		c.CloseWrite()
		<-reset
		nc.SetLinger(0)
	}))
	rest(t, c)
	send(t, c, []byte("x"))
	r.ok(r.Flush(h, 1))
	if st := r.status(h); st.Read != "end" || st.Write != "open" {
		t.Errorf("before the reset, the status is %+v, want Read end and Write open", st)
	}
	close(reset)
	unsendable(t, c)
	st := r.status(h)
	if e := st.WriteError; e == nil || e.Errno != "ECONNRESET" ||
		!strings.HasPrefix(e.Why, "write: ") {
		t.Errorf("after the reset, the status is %+v, its WriteError %v; want "+
			"ECONNRESET of a write", st, e)
	}
	r.ok(r.Close(h))
}

// TestAStuckPeerOfOpenSSLFailsOnlyItself: the write timeout ends the connections to stuck peers.
// Meanwhile another connection works.
func TestAStuckPeerOfOpenSSLFailsOnlyItself(t *testing.T) {
	t.Parallel()
	r := newRealRig(t, timeouts(session.Timeouts{Write: era}))
	port := r.serve(func(c *tls.Conn, _ *net.TCPConn) { <-t.Context().Done() })
	var stuck []session.Handle
	var over sync.WaitGroup
	for range 5 {
		h, c := r.channel(port)
		r.ok(r.SetTimeout(h, 20*moment))
		stuck = append(stuck, h)
		over.Go(func() {
			if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, syscall.EPIPE) {
				t.Errorf("a send to a stuck peer returns the error %v, want "+
					"EPIPE", err)
			}
		})
	}
	h, c := r.channel(r.echo())
	for range 200 {
		send(t, c, []byte("ping"))
		receive(t, c, 4)
	}
	r.ok(r.Close(h))
	over.Wait()
	for _, h := range stuck {
		r.failsWith(r.Close(h), kind.Timeout, "bytes within 1s; ")
	}
}

// TestCloseOverOpenSSLDrains: Close sends all bytes of the data channel, and then close_notify. The
// session's end sends the bytes, and no close_notify.
func TestCloseOverOpenSSLDrains(t *testing.T) {
	t.Parallel()
	for _, orderly := range []bool{true, false} {
		t.Run(fmt.Sprint(orderly), func(t *testing.T) {
			t.Parallel()
			r := newRealRig(t, timeouts(session.Timeouts{Close: testkit.Patience}))
			port, got := r.sink()
			h, c := r.channel(port)
			data := random(150000)
			send(t, c, data)
			if orderly {
				r.ok(r.Close(h))
				want(t, got, string(data)+"|close_notify")
			} else {
				r.End()
				want(t, got, string(data)+"|cut")
			}
		})
	}
}

// If a socket is closed while it has unread bytes, the system resets the connection, and discards
// the bytes that the socket has not sent yet. tlsd must not lose its bytes in this way. The peer
// first writes more than all buffers take, and reads only afterwards. So the peer's Write succeeds
// only if tlsd receives and discards the peer's bytes at the end. The peer's buffer is smaller than
// the data, so a part of the data waits in tlsd's socket.
func TestNoEndLosesDataAlthoughThePeersBytesAreUnread(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		finish func(r *rig, h session.Handle, c *net.UnixConn)
		end    error
	}{
		"Close": {func(r *rig, h session.Handle, _ *net.UnixConn) {
			r.ok(r.Close(h))
		}, nil},
		"Close, and the session's end before its answer": {
			func(r *rig, h session.Handle, _ *net.UnixConn) {
				r.start(r.Close(h))
				r.End()
			}, nil},
		"the caller's end of the channel, then Close": {
			func(r *rig, h session.Handle, c *net.UnixConn) {
				c.Close()
				r.ok(r.Close(h))
			}, errCut},
		"the session's end": {func(r *rig, _ session.Handle, _ *net.UnixConn) {
			r.End()
		}, errCut},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRealRig(t, timeouts(session.Timeouts{Close: testkit.Patience}))
			got := make(chan string, 1)
			port := r.serve(func(c *tls.Conn, tcp *net.TCPConn) {
				err := tcp.SetReadBuffer(16 << 10)
				if err == nil {
					// more than all buffers take
					_, err = c.Write(make([]byte, 32<<20))
				}
				b, end := io.ReadAll(c)
				got <- fmt.Sprintf("%s|%v|%v", b, err, end)
			})
			h, c := r.channel(port)
			data := random(150000)
			send(t, c, data)
			tt.finish(r, h, c)
			want(t, got, fmt.Sprintf("%s|%v|%v", data, nil, tt.end))
		})
	}
}

// TestAServerReadsWhatItsClientSentBeforeAReset: the client sends a request, and later resets the
// connection. The server gets the request, although the server's own Write fails first.
func TestAServerReadsWhatItsClientSentBeforeAReset(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	ctx, port := r.server(), testkit.Port(t)
	for range 20 {
		c, worker := pair(t)
		accept := r.start(r.Session.Accept(ctx, "127.0.0.1", port, worker))
		peer := r.dial(port)
		h := accept.ok().(session.Handle)
		peer.Write([]byte("the request"))
		send(t, c, []byte("answer"))
		receive(t, peer, 1)
		raw := peer.NetConn().(*net.TCPConn)
		go c.Write(make([]byte, 4<<20))
		receive(t, peer, 50000)
		raw.Close() // resets the connection, because data is unread
		if got := string(rest(t, c)); got != "the request" {
			t.Errorf("the caller has got %q, want \"the request\"", got)
		}
		unsendable(t, c)
		r.status(h)
		r.ok(r.Close(h))
	}
}
