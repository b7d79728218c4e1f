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

// A context serves many clients. They wait between two Accepts, and none holds up another.

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
					t.Errorf("client %d: %v", i, err)
					return
				}
				question := fmt.Sprintf("%s question %02d", marker, i)
				if err := write(s, question); err != nil {
					t.Errorf("client %d: %v", i, err)
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
				t.Fatalf("accept %d: %v", i, err)
			}
			all.Go(func() {
				question, err := read(s, len(marker+" question 00"))
				if err == nil {
					err = write(s, "answer to "+question)
				}
				if err != nil {
					t.Errorf("server %d: %v", i, err)
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

// Clients that come between two Accepts wait. Their handshakes are done meanwhile. An Accept finds
// the data that they have sent.
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
				t.Fatalf("client %d between two Accepts: %v", i, err)
			}
			send(t, cl, c, fmt.Sprintf("%s %d", marker, i))
			clients = append(clients, c)
		}
		for range waiting {
			s, err := l.accept(t)
			if err != nil {
				t.Fatal(err)
			}
			text, err := read(s, len(marker)+2)
			if err != nil {
				t.Fatal(err)
			}
			n, _ := strconv.Atoi(text[len(text)-1:])
			if n >= waiting || clients[n] == nil {
				t.Fatalf("%q was read twice, or nobody has sent it", text)
			}
			send(t, sv, s, text)
			expect(t, cl, clients[n], text)
			clients[n] = nil
		}
	})
}

// The Accept that meets a hostile client fails. The client holds up no other client.
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
					// the client's slowness is what is tested
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
					t.Errorf("%v (%+v); want kind %s, with the texts %q", err,
						failure(err), c.kind, says)
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

// servesNext checks that the next Accept gets a good client, and talks with it.
func servesNext(t *testing.T, w *world, e us, l ourListener) {
	t.Helper()
	accepted := accepting(t, l)
	s, err := goEndpoint{}.dial(t, address{"localhost", l.Port}, dialOptions{ca: w.ca.File})
	testkit.Must(t, err)
	a := <-accepted
	testkit.Must(t, a.err)
	greet(t, goEndpoint{}, e, s, a.stream)
}

// Other clients overtake a client that is slow in its handshake.
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

// CloseServerContext stops listening and ends a waiting Accept. Accepted connections live on.
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
		// A client that no Accept takes is dropped, and is told so. In TLS 1.2 the server
		// ends the handshake, so that the handshake is done for both sides. A client in the
		// middle of its handshake is cut.
		unclaimed, err := cl.dial(t, address{"localhost", l.Port},
			dialOptions{ca: w.ca.File, only: tls.VersionTLS12})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.S.CloseServerContext(l.Ctx, l.H); err != nil {
			t.Fatal(err)
		}
		expectEnd(t, cl, unclaimed)
		if testd.Listening(t, l.Port) {
			t.Error("we still listen")
		}
		if err := l.S.CloseServerContext(l.Ctx, l.H); !isKind(err, client.KindHandle) {
			t.Errorf("closing it again: %v; want kind handle", err)
		}
		greet(t, cl, e, c, a.stream)
	})
}

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
		// 1 is the context, 2 was taken by an Accept of listen, so 3 is this one's.
		testkit.Until(t, "the Accept has arrived", func() bool {
			e := failure(l.S.CloseServerContext(l.Ctx, 3))
			return e != nil && mentions(e, "it is a connection")
		})
		if err := l.S.CloseServerContext(l.Ctx, l.H); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !isKind(err, client.KindCancelled) ||
			tells(failure(err)) && failure(err).Data.Handle != int32(l.H) {
			t.Errorf("the waiting Accept: %v; want kind cancelled", err)
		}
	})
}
