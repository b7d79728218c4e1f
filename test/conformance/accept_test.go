package conformance

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
	"tlsd/session"
)

// A server context serves many clients. A client that comes between two Accepts waits for the next
// Accept. No client delays another.

const crowd = 20

// Many clients come at once to one listener. Each is served, and gets its own answer.
func TestTwentyClientsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	overPairs(t, needs{server: []ability{many}}, func(t *testing.T, cl, sv endpoint) {
		l := sv.listen(t, listenOptions{cert: w.cert})
		var all sync.WaitGroup
		for i := range crowd {
			all.Go(func() {
				s, err := cl.dial(t, address{"localhost", l.port()},
					dialOptions{ca: w.ca.File})
				if err != nil {
					t.Errorf("client %d cannot connect: %v", i, err)
					return
				}
				question := fmt.Sprintf("%s question %02d", marker, i)
				if err := write(s, question); err != nil {
					t.Errorf("client %d cannot send its question: %v", i, err)
					return
				}
				answer := "answer to " + question
				got, err := read(s, len(answer))
				if err != nil || got != answer {
					t.Errorf("client %d reads %q, %v; want the answer to its "+
						"own question", i, got, err)
				}
			})
		}
		for i := range crowd {
			s, err := l.accept(t)
			if err != nil {
				t.Fatalf("Accept %d fails with %v, want a client", i, err)
			}
			all.Go(func() {
				question, err := read(s, len(marker+" question 00"))
				if err == nil {
					err = write(s, "answer to "+question)
				}
				if err != nil {
					t.Errorf("the connection of Accept %d cannot read a "+
						"question or write an answer: %v", i, err)
				}
			})
		}
		all.Wait()
	})
}

func write(s stream, text string) error {
	_, err := io.WriteString(s, text)
	return err
}

func read(s stream, n int) (string, error) {
	buf := make([]byte, n)
	n, err := io.ReadFull(s, buf)
	return string(buf[:n]), err
}

// A client that comes while no Accept runs is not lost: tlsd does its handshake without an Accept.
// A later Accept returns the connection, and a Read returns the data that the client has already
// sent.
func TestClientsBetweenTwoAcceptsWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	need := needs{server: []ability{many, shakeAhead}}
	overPairs(t, need, func(t *testing.T, cl, sv endpoint) {
		l := sv.listen(t, listenOptions{cert: w.cert})
		const waiting = 3
		var clients []stream
		for i := range waiting {
			c, err := cl.dial(t, address{"localhost", l.port()},
				dialOptions{ca: w.ca.File})
			if err != nil {
				t.Fatalf("client %d cannot connect while no Accept waits: %v", i,
					err)
			}
			send(t, cl, c, fmt.Sprintf("%s %d", marker, i))
			clients = append(clients, c)
		}
		for range waiting {
			s, err := l.accept(t)
			if err != nil {
				t.Fatalf("an Accept fails with %v although a client waits", err)
			}
			text, err := read(s, len(marker)+2)
			if err != nil {
				t.Fatalf("the server cannot read the data that a client has "+
					"sent before its Accept: %v", err)
			}
			n, _ := strconv.Atoi(text[len(text)-1:])
			if n >= waiting || clients[n] == nil {
				t.Fatalf("the server reads %q twice, or no client sent it", text)
			}
			send(t, sv, s, text)
			expect(t, cl, clients[n], text)
			clients[n] = nil
		}
	})
}

// If a client does not do its handshake, one Accept fails, and its error names the client. The next
// Accept serves a good client.
func TestAnAcceptMeetsABadClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hello := clientHello(t)
	atEachLevel(t, session.Timeouts{AcceptHandshake: handshakeBound}, func(t *testing.T, e us) {
		for _, c := range []struct {
			name string
			act  func(*net.TCPConn)
			kind client.Kind
			says []string
		}{
			{"hangs up at once", func(c *net.TCPConn) { c.Close() },
				client.KindHandshake, nil},
			{"resets at once", func(c *net.TCPConn) { c.SetLinger(0); c.Close() },
				client.KindHandshake, nil},
			{"hangs up in its first message",
				func(c *net.TCPConn) { c.Write(hello[:50]); c.Close() },
				client.KindHandshake, nil},
			{"hangs up after its first message", func(c *net.TCPConn) {
				c.Write(hello)
				io.ReadFull(c, make([]byte, 100))
				c.CloseWrite()
			}, client.KindHandshake, nil},
			{"speaks HTTP", func(c *net.TCPConn) {
				io.WriteString(c, "GET /"+marker+" HTTP/1.1\r\nHost: x\r\n\r\n")
			}, client.KindHandshake, []string{"HTTP"}},
			{"sends garbage", func(c *net.TCPConn) { c.Write(make([]byte, 1000)) },
				client.KindHandshake, nil},
			{"says nothing", func(c *net.TCPConn) {}, client.KindTimeout,
				[]string{"within " + handshakeBound.String()}},
			{"stops in its first message", func(c *net.TCPConn) { c.Write(hello[:50]) },
				client.KindTimeout, []string{"within " + handshakeBound.String()}},
			{"sends a byte now and then", func(c *net.TCPConn) {
				for _, b := range hello {
					if _, err := c.Write([]byte{b}); err != nil {
						return
					}
					// This is not a wait for an event: the client must be slow.
					time.Sleep(20 * time.Millisecond)
				}
			}, client.KindTimeout, []string{"within " + handshakeBound.String()}},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				l := e.server(t, listenOptions{cert: w.cert})
				conn, err := net.Dial("tcp", testkit.Addr(l.Port))
				if err != nil {
					t.Fatal(err)
				}
				acted := make(chan bool)
				go func() { defer close(acted); c.act(conn.(*net.TCPConn)) }()
				t.Cleanup(func() { conn.Close(); <-acted })
				peer := conn.LocalAddr().String()

				_, err = l.accept(t)
				says := append(c.says, "tls.Accept", peer)
				if !isKind(err, c.kind) || !mentions(failure(err), says...) {
					t.Errorf("tls.Accept: %v (%+v); want kind %s, with the "+
						"texts %q", err, failure(err), c.kind, says)
				}
				if err != nil {
					if last, lastErr := l.S.LastError(l.Ctx); lastErr != nil ||
						last != err.Error() {
						t.Errorf("tls.LastError: %q, %v; want %q", last,
							lastErr, err)
					}
				}
				servesNext(t, w, e, l)
			})
		}
	})
}

// clientHello is the first message of a client of crypto/tls.
func clientHello(t *testing.T) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	done := make(chan bool)
	go func() {
		defer close(done)
		tls.Client(near, &tls.Config{ServerName: "localhost"}).Handshake()
	}()
	far.SetDeadline(time.Now().Add(testkit.Patience))
	header := make([]byte, 5)
	if _, err := io.ReadFull(far, header); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(header[3])<<8|int(header[4]))
	if _, err := io.ReadFull(far, body); err != nil {
		t.Fatal(err)
	}
	far.Close()
	<-done
	return append(header, body...)
}

// servesNext checks that the next Accept returns the connection of a good client, and that data
// goes both ways.
func servesNext(t *testing.T, w *world, e us, l ourListener) {
	t.Helper()
	accepted := accepting(t, l)
	s, err := goEndpoint{}.dial(t, address{"localhost", l.Port}, dialOptions{ca: w.ca.File})
	testkit.Must(t, err)
	a := <-accepted
	testkit.Must(t, a.err)
	greet(t, goEndpoint{}, e, s, a.stream)
}

// Five clients connect and send nothing. A sixth client is served without waiting for their
// handshakes, whose timeout is an hour.
func TestASlowClientHoldsUpNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{AcceptHandshake: time.Hour}, func(t *testing.T, e us) {
		l := e.server(t, listenOptions{cert: w.cert})
		for range 5 {
			conn, err := net.Dial("tcp", testkit.Addr(l.Port))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
		servesNext(t, w, e, l)
	})
}

// CloseServerContext stops listening, and ends a connection that no Accept has claimed. Accepted
// connections go on.
func TestCloseServerContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		cl := goEndpoint{}
		l := e.server(t, listenOptions{cert: w.cert})
		accepted := accepting(t, l)
		c, err := cl.dial(t, address{"localhost", l.Port}, dialOptions{ca: w.ca.File})
		if err != nil {
			t.Fatal(err)
		}
		a := <-accepted
		if a.err != nil {
			t.Fatal(a.err)
		}
		// A client that no Accept has claimed gets close_notify if its handshake is done.
		// This client speaks TLS 1.2, where the server sends the last message of the
		// handshake. So after dial the handshake is done on both sides. (In the middle of a
		// handshake tlsd would cut the connection.)
		unclaimed, err := cl.dial(t, address{"localhost", l.Port},
			dialOptions{ca: w.ca.File, only: tls.VersionTLS12})
		if err != nil {
			t.Fatalf("a client cannot connect while no Accept waits: %v", err)
		}
		if err := l.S.CloseServerContext(l.Ctx, l.H); err != nil {
			t.Fatalf("CloseServerContext: %v", err)
		}
		expectEnd(t, cl, unclaimed)
		if testd.Listening(t, l.Port) {
			t.Error("after CloseServerContext the port still accepts connections")
		}
		if err := l.S.CloseServerContext(l.Ctx, l.H); !isKind(err, client.KindHandle) {
			t.Errorf("a second CloseServerContext: %v; want kind handle", err)
		}
		greet(t, cl, e, c, a.stream)
	})
}

// If an Accept waits when its context is closed, the Accept fails with kind cancelled.
func TestCloseServerContextEndsAWaitingAccept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	atEachLevel(t, session.Timeouts{}, func(t *testing.T, e us) {
		l := e.server(t, listenOptions{cert: w.cert})
		ended := make(chan error, 1)
		go func() {
			_, err := l.S.Accept(l.Ctx, l.H, "127.0.0.1", l.Port)
			ended <- err
		}()
		// The waiting Accept has handle 3: the context has 1, and ours.Listen has used 2.
		testkit.Until(t, "the Accept has arrived", func() bool {
			e := failure(l.S.CloseServerContext(l.Ctx, 3))
			return e != nil && mentions(e, "it is a connection")
		})
		if err := l.S.CloseServerContext(l.Ctx, l.H); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !isKind(err, client.KindCancelled) ||
			tells(failure(err)) && failure(err).Data.Handle != int32(l.H) {
			t.Errorf("the waiting Accept: %v; want kind cancelled, and handle %d", err,
				l.H)
		}
	})
}
