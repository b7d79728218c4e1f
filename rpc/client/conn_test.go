package client

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"tlsd/internal/testkit"
)

var _ net.Conn = (*Conn)(nil)

// talkOver is like talk, but returns a connection with handle 7. The script begins after the
// handshake. It gets tlsd's end of the connection's data channel.
func talkOver(t *testing.T, script func(*standIn, *net.UnixConn)) *Conn {
	t.Helper()
	c := talk(t, func(s *standIn) {
		m := s.expect("tls.Handshake", "[7,1]")
		ch := s.channel()
		s.result(m, "0")
		script(s, ch)
		s.end()
	})
	conn, err := c.HandshakeConn(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.ch.Close() })
	return conn
}

// bothOpen is the answer to tls.Status if both directions of a connection are open.
const bothOpen = `{"read":"open","write":"open","received":0,"sent":0}`

// A Conn carries bytes in both directions, and the end of each direction. When the bytes from the
// peer end, the Conn asks tlsd for the reason, but only once.
func TestBytesGoOverTheDataChannel(t *testing.T) {
	t.Parallel()
	c := talkOver(t, func(s *standIn, ch *net.UnixConn) {
		io.Copy(ch, ch) // until the client calls CloseWrite
		ch.CloseWrite()
		s.result(s.expect("tls.Flush", "[7,1000000]"), "0")
		s.result(s.expect("tls.Status", "[7]"), `{"read":"end","write":"shut","received":1000000,"sent":1000000}`)
		s.result(s.expect("tls.Close", "[7]"), "0")
	})
	data := pattern(1_000_000)
	wrote := make(chan error, 1)
	go func() {
		n, err := c.Write(data)
		if n != len(data) {
			t.Errorf("Write returns %d bytes, want %d", n, len(data))
		}
		wrote <- errors.Join(err, c.CloseWrite())
	}()
	got := make([]byte, len(data))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != string(data) {
		t.Fatalf("the data that comes back is not what was sent, error %v", err)
	}
	if err := <-wrote; err != nil {
		t.Errorf("Write or CloseWrite returns %v", err)
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Errorf("Flush returns %v", err)
	}
	for range 3 { // the client asks tlsd once
		if n, err := c.Read(got); n != 0 || err != io.EOF {
			t.Errorf("Read at the end of the data returns %d, %v; want io.EOF", n, err)
		}
	}
	_, err := c.Write([]byte("x"))
	wantKind(t, err, KindState)
	if err := c.Close(); err != nil {
		t.Errorf("Close returns %v", err)
	}
	if c.Handle() != 7 || c.LocalAddr().String() != "handle 7" ||
		c.RemoteAddr().Network() != "tlsd" {
		t.Errorf("the handle is %d, the addresses are %v and %v; want 7, \"handle 7\", "+
			"and an address of the network tlsd", c.Handle(), c.LocalAddr(),
			c.RemoteAddr())
	}
}

// AcceptConn returns a connection with the handle that tlsd has given it.
func TestAcceptConnHasTheHandleOfTheAnswer(t *testing.T) {
	t.Parallel()
	c := talk(t, func(s *standIn) {
		m := s.expect("tls.Accept", `[3,"127.0.0.1",8443,1]`)
		ch := s.channel()
		s.result(m, "12")
		ch.Write([]byte("hi"))
		s.result(s.expect("tls.Close", "[12]"), "0")
		s.end()
	})
	conn, err := c.AcceptConn(t.Context(), 3, "127.0.0.1", 8443)
	if err != nil || conn.Handle() != 12 {
		t.Fatalf("AcceptConn returns %v, %v; want handle 12", conn, err)
	}
	p := make([]byte, 10)
	if n, err := conn.Read(p); string(p[:n]) != "hi" || err != nil {
		t.Errorf("Read returns %q, %v; want hi", p[:n], err)
	}
	if err := conn.Close(); err != nil {
		t.Errorf("Close returns %v", err)
	}
}

// If HandshakeConn or AcceptConn fails, the client closes its end of the new data channel.
func TestACallThatFailsLeavesNoChannel(t *testing.T) {
	t.Parallel()
	c := talk(t, func(s *standIn) {
		m := s.expect("tls.Handshake", "[7,1]")
		ch := s.channel()
		s.error(m, -32007, "not trusted", "verify")
		if _, err := ch.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("Handshake has failed, and the client's end is open: %v", err)
		}
		m = s.expect("tls.Accept", "")
		ch = s.channel()
		s.error(m, -32005, "in use", "connect")
		if _, err := ch.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("Accept has failed, and the client's end is open: %v", err)
		}
		s.end()
	})
	_, err := c.HandshakeConn(t.Context(), 7)
	wantKind(t, err, KindVerify)
	_, err = c.AcceptConn(t.Context(), 3, "::1", 1)
	wantKind(t, err, KindConnect)
}

// When a direction of the data channel ends, the client asks tlsd for the reason. Each later call
// of the same direction returns this reason without asking again.
func TestTheReasonOfAnEndIsAsked(t *testing.T) {
	t.Parallel()
	const cut = `{"read":"failed","write":"failed","received":0,"sent":5,` +
		`"readError":{"code":-32008,"message":"the connection was cut","data":{"kind":"io","op":"tls.Read","handle":7}},` +
		`"writeError":{"code":-32009,"message":"the peer takes nothing","data":{"kind":"timeout","op":"tls.Write","handle":7}}}`
	for _, tt := range []struct {
		name   string
		end    func(*net.UnixConn)
		do     func(*Conn) error
		status string
		kind   Kind
		says   string
	}{
		{"reading", func(ch *net.UnixConn) { ch.CloseWrite() },
			func(c *Conn) error {
				_, err := c.Read(make([]byte, 1))
				return err
			}, cut, KindIO, "the connection was cut"},
		{"writing", func(ch *net.UnixConn) { ch.CloseRead() },
			func(c *Conn) error {
				_, err := c.Write([]byte("x"))
				return err
			}, cut, KindTimeout, "the peer takes nothing"},
		{"reading, for no reason", func(ch *net.UnixConn) { ch.CloseWrite() },
			func(c *Conn) error {
				_, err := c.Read(make([]byte, 1))
				return err
			}, bothOpen, KindInternal, "data channel has ended"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan struct{})
			c := talkOver(t, func(s *standIn, ch *net.UnixConn) {
				tt.end(ch)
				close(ended)
				s.result(s.expect("tls.Status", "[7]"), tt.status)
			})
			<-ended
			for range 2 {
				err := tt.do(c)
				wantKind(t, err, tt.kind)
				if !strings.Contains(err.Error(), tt.says) {
					t.Errorf("the error is %v, want %q in it", err, tt.says)
				}
			}
		})
	}
}

// If tls.Close fails, Close returns tlsd's error, but still closes the connection. Later calls
// return net.ErrClosed.
func TestCloseReturnsAnErrorThatNoCallHasReturned(t *testing.T) {
	t.Parallel()
	c := talkOver(t, func(s *standIn, ch *net.UnixConn) {
		s.error(s.expect("tls.Close", "[7]"), -32008, "reset by the peer", "io")
		if _, err := ch.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("Close has left the client's end of the channel open: %v", err)
		}
	})
	wantKind(t, c.Close(), KindIO)
	_, read := c.Read(make([]byte, 1))
	_, wrote := c.Write([]byte("x"))
	for _, err := range []error{c.Close(), read, wrote, c.CloseWrite(), c.Flush(t.Context()),
		c.SetDeadline(time.Time{})} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("a call after Close returns %v, want net.ErrClosed", err)
		}
	}
}

// Close ends a Read that waits for the peer, and a Write that waits for tlsd.
func TestCloseEndsWhatWaits(t *testing.T) {
	t.Parallel()
	writes := make(chan error, 1)
	c := talkOver(t, func(s *standIn, ch *net.UnixConn) {
		_, err := ch.Read(make([]byte, 1))
		writes <- err
		s.result(s.expect("tls.Close", "[7]"), "0")
	})
	ended := make(chan error, 2)
	go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
	go func() { _, err := c.Write(make([]byte, 64<<20)); ended <- err }()
	testkit.Must(t, testkit.Receive(t, writes, "the Write to begin"))
	if err := c.Close(); err != nil {
		t.Errorf("Close returns %v", err)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the waiting call returns %v, want net.ErrClosed", err)
		}
	}
}

// If a deadline has cut off a Write, and the rest was not written later, the peer must learn that
// data is missing. So Close shuts down both directions of the channel before it calls tls.Close.
// Then tlsd sends no close_notify.
func TestCloseTellsOfACutWrite(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]bool{"cut": false, "cut, and then completed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			drain := make(chan struct{})
			c := talkOver(t, func(s *standIn, ch *net.UnixConn) {
				<-drain
				if again {
					io.CopyN(io.Discard, ch, 1<<20)
				}
				m := s.expect("tls.Close", "[7]")
				if _, err := ch.Write([]byte("x")); (err == nil) != again {
					t.Errorf("at tls.Close, a byte to the client gives the "+
						"error %v; the Write was completed, so the "+
						"channel must be open: %v", err, again)
				}
				s.result(m, "0")
			})
			n, err := 0, error(nil)
			// If the deadline passes before the Write sends a byte, try again.
			for n == 0 {
				c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
				n, err = c.Write(make([]byte, 1<<20))
			}
			if n == 1<<20 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Write returns %d, %v; want a part of %d bytes, and the "+
					"error of the deadline", n, err, 1<<20)
			}
			close(drain)
			if again {
				c.SetWriteDeadline(time.Time{})
				if _, err := c.Write(make([]byte, 1<<20-n)); err != nil {
					t.Errorf("the rest of the Write fails: %v", err)
				}
			}
			if err := c.Close(); err != nil {
				t.Errorf("Close returns %v", err)
			}
		})
	}
}

// If the context of CloseContext ends, the client cancels tls.Close.
func TestCloseCanBeCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := talkOver(t, func(s *standIn, _ *net.UnixConn) {
		m := s.expect("tls.Close", "[7]")
		cancel()
		s.cancelled(m)
		s.error(m, -32010, "cancelled", "cancelled")
	})
	wantKind(t, c.CloseContext(ctx), KindCancelled)
}

// A deadline ends a Read or a Write that waits. The connection works after that.
func TestDeadlinesOfAConnEndWaitsOnly(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	c := talkOver(t, func(_ *standIn, ch *net.UnixConn) {
		<-more
		ch.Write([]byte("late"))
		io.Copy(io.Discard, ch)
	})
	if err := c.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read after its deadline returns %v, want ErrDeadlineExceeded", err)
	}
	if err := c.SetWriteDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write after its deadline returns %v, want ErrDeadlineExceeded", err)
	}
	close(more)
	if err := c.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 10)
	if n, err := c.Read(p); string(p[:n]) != "late" || err != nil {
		t.Errorf("Read without a deadline returns %q, %v; want late", p[:n], err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Errorf("Write without a deadline fails: %v", err)
	}
	c.ch.Close()
}

// If the session is lost, the calls of its connections fail with kind lost.
func TestALostSessionEndsItsConns(t *testing.T) {
	t.Parallel()
	c := talk(t, func(s *standIn) {
		m := s.expect("tls.Handshake", "[7,1]")
		ch := s.channel()
		s.result(m, "0")
		ch.Close()
		s.conn.Close()
	})
	conn, err := c.HandshakeConn(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Read(make([]byte, 1))
	wantKind(t, err, KindLost)
	wantKind(t, conn.Close(), KindLost)
}

// Status returns all that tlsd says about a connection.
func TestStatusKeepsWhatTlsdSays(t *testing.T) {
	t.Parallel()
	c := talk(t, func(s *standIn) {
		s.result(s.expect("tls.Status", "[7]"), `{"read":"end","write":"failed","received":5,"sent":6,"writeError":{"code":-32008,"message":"m","data":{"kind":"io"}}}`)
		s.result(s.expect("tls.Shutdown", "[7]"), "0")
		s.end()
	})
	st, err := c.Status(t.Context(), 7)
	if err != nil || st.Read != "end" || st.Write != "failed" || st.Received != 5 ||
		st.Sent != 6 || st.ReadError != nil {
		t.Errorf("Status returns %+v, %v; want the values of tlsd's answer, and no "+
			"ReadError", st, err)
	}
	wantKind(t, st.WriteError, KindIO)
	if err := c.Shutdown(t.Context(), 7); err != nil {
		t.Errorf("Shutdown returns %v", err)
	}
}
