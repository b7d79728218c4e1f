package plugin

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
)

// tls_Cancel ends every call that waits, in whatever phase the call is. Everything else goes on.

// A canceller is a way to call tls_Cancel while a call waits. Each way calls it again and again,
// because tls_Cancel does not end a call that begins later.
type canceller struct {
	name string
	// start begins the call that will be cancelled.
	start func(h *host, op string, args ...any) *pending
	// cancel is called from time to time until the call has ended.
	cancel func(h *host)
	// end stops the timer that start has set in the host, if any.
	end func(h *host)
}

func cancellers() []canceller {
	threads := func(h *host, op string, args ...any) *pending { return h.start(op, args...) }
	nothing := func(*host) {}
	list := []canceller{{"another thread", threads,
		func(h *host) { h.send("Cancel").gives(0, "") }, nothing}}
	for name, flags := range map[string]int{"": 0, ", SA_RESTART": 0x10000000} {
		list = append(list,
			// The thread that waits calls tls_Cancel. The host's main thread waits for
			// commands meanwhile.
			canceller{"a handler in the waiting thread" + name,
				func(h *host, op string, args ...any) *pending {
					h.send("catch", flags).gives(0, "")
					return h.start(op, args...)
				},
				func(h *host) { h.send("interrupt").gives(0, "") }, nothing},
			// The host's only thread waits, and calls tls_Cancel in its signal handler.
			canceller{"a handler for SIGALRM" + name,
				func(h *host, op string, args ...any) *pending {
					h.send("catch", flags).gives(0, "")
					h.send("alarm", 20).gives(0, "")
					return h.send(op, args...)
				},
				nothing, func(h *host) { h.send("alarm", 0).gives(0, "") }})
	}
	return list
}

// ended is the result of a call that a canceller has ended.
type ended struct {
	op string
	result
}

// run starts a call of op, and calls tls_Cancel until this call and the others have ended.
func (c canceller) run(h *host, op string, args []any, others ...*pending) (results []ended) {
	h.t.Helper()
	defer c.end(h)
	for _, call := range append(others, c.start(h, op, args...)) {
		for end := time.Now().Add(testkit.Patience); ; {
			select {
			case r := <-call.Result():
				results = append(results,
					ended{strings.TrimPrefix(call.Op, "&"), r})
			case <-h.Left:
				h.t.Fatalf("during the call of %s the host has ended", call.Op)
			case <-time.After(10 * time.Millisecond):
				if time.Now().After(end) {
					h.t.Fatalf("%s does not end after many calls of tls_Cancel",
						call.Op)
				}
				c.cancel(h)
				continue
			}
			break
		}
	}
	return results
}

// A stuck call is a call that would wait for a long time.
type stuck struct {
	name    string
	prepare func(t *testing.T) *stuckHost
	after   func(t *testing.T, h *host) // checks what must still work; nil: nothing
}

type stuckHost struct {
	*host
	op     string
	args   []any
	others []*pending // calls that the test has started already, and that wait, too
}

func stuckCalls(t *testing.T) []stuck {
	d := startTLSD(t)
	ca := testcert.NewCA(t, "Test CA")
	cert := ca.Localhost(t)
	connected := func(t *testing.T, port int) *host {
		h := startHost(t, d.env())
		h.send("SetCaBundle", ca.File).gives(0, "")
		h.send("NewClient", "localhost", port).gives(1, "")
		return h
	}
	shaken := func(t *testing.T, serve func(conn *tls.Conn)) *host {
		h := connected(t, testkit.ServeTLS(t, cert.Config(), serve))
		h.send("Handshake", 1).gives(0, "")
		return h
	}
	listens := func(conn *tls.Conn) { io.Copy(io.Discard, conn) }
	call := func(h *host, op string, args ...any) *stuckHost {
		return &stuckHost{host: h, op: op, args: args}
	}
	alive := func(t *testing.T, h *host) {
		h.send("Backend").gives(7, "openssl")
		h.send("Close", 1).gives(0, "")
		h.send("NewServerContext", cert.CertFile, cert.KeyFile).gives(2, "")
	}
	return []stuck{
		{"NewClient in connect", func(t *testing.T) *stuckHost {
			return call(startHost(t, d.env()), "NewClient", "127.0.0.1",
				testkit.Unanswered(t))
		}, func(t *testing.T, h *host) { h.send("Backend").gives(7, "openssl") }},
		{"Handshake with a silent peer", func(t *testing.T) *stuckHost {
			return call(connected(t, silentPort(t)), "Handshake", 1)
		}, alive},
		{"Read from a silent peer", func(t *testing.T) *stuckHost {
			return call(shaken(t, func(conn *tls.Conn) {
				io.CopyN(conn, conn, 5)
				io.Copy(io.Discard, conn)
			}), "Read", 1, 100)
		}, func(t *testing.T, h *host) {
			h.send("Write", 1, []byte("hello")).gives(5, "")
			// the cancelled Read has taken no data
			h.send("Read", 1, 100).reads("hello")
			alive(t, h)
		}},
		{"Write to a peer that does not read", func(t *testing.T) *stuckHost {
			h := shaken(t, func(conn *tls.Conn) {
				conn.Handshake()
				<-t.Context().Done()
			})
			// The Write must wait for the peer, even if all its bytes fit into buffers.
			h.send("SetStrictWrites", 1).gives(0, "")
			return call(h, "WriteZeros", 1, 16<<20)
		}, func(t *testing.T, h *host) {
			// A Close waits until the written data has been sent. tls_Cancel ends this
			// wait.
			for _, r := range cancellers()[0].run(h, "Close", []any{1}) {
				// The Close succeeds if the cancelled Write had sent nothing.
				if r.N != 0 && !strings.HasPrefix(r.Text, "tls.") {
					t.Errorf("a cancelled Close gives %d, %q; want 0, or "+
						"a text that begins with \"tls.\"", r.N, r.Text)
				}
			}
			h.send("Close", 1).fails("tls.Close: handle 1: ")
			h.send("Backend").gives(7, "openssl")
		}},
		{"Accept without a client", func(t *testing.T) *stuckHost {
			h := startHost(t, d.env())
			h.send("NewServerContext", cert.CertFile, cert.KeyFile).gives(1, "")
			return call(h, "Accept", 1, "127.0.0.1", testkit.Port(t))
		}, func(t *testing.T, h *host) { h.send("CloseServerContext", 1).gives(0, "") }},
		{"Read behind another Read of the handle", func(t *testing.T) *stuckHost {
			c := call(shaken(t, listens), "Read", 1, 100)
			c.others = []*pending{c.start("Read", 1, 100)}
			return c
		}, alive},
		{"eight Handshakes at once", func(t *testing.T) *stuckHost {
			c := call(connected(t, silentPort(t)), "Handshake", 1)
			c.others = []*pending{c.start("Handshake", 1)}
			for range 6 {
				c.others = append(c.others, c.start("Handshake", 1))
			}
			return c
		}, alive},

		// These calls wait before there is a session.
		{"a private tlsd that is never ready", func(t *testing.T) *stuckHost {
			socket := filepath.Join(nowhere(t), "s")
			return call(startHost(t, "TLSD_AUTOSTART=", "TLSD_SOCKET="+socket,
				"TLSD_EXE="+tlsdThat(t, "mute")), "NewServerContext", "/c", "/k")
		}, nil},
		{"a tlsd that does not accept", func(t *testing.T) *stuckHost {
			return call(startHost(t, "TLSD_SOCKET="+fullQueue(t)), "SetCaBundle", "/ca")
		}, nil},
		{"a tlsd that never answers Hello", func(t *testing.T) *stuckHost {
			return call(startHost(t, newStandIn(t).env()), "NewClient", "h", 1)
		}, nil},
		{"a tlsd that never answers the Hello of another call",
			func(t *testing.T) *stuckHost {
				c := call(startHost(t, newStandIn(t).env()), "NewClient", "h", 1)
				c.others = []*pending{c.start("NewServerContext", "/c", "/k")}
				return c
			}, nil},
		{"the wait for another call's search for a tlsd", func(t *testing.T) *stuckHost {
			c := call(startHost(t, "TLSD_SOCKET="+fullQueue(t)), "NewClient", "h", 1)
			c.others = []*pending{c.start("NewServerContext", "/c", "/k"),
				c.start("NewClient", "h", 2)}
			return c
		}, nil},
		{"the wait for another call's CA bundle", func(t *testing.T) *stuckHost {
			c := call(startHost(t, newStandIn(t).env()), "SetCaBundle", "/a")
			c.others = []*pending{c.start("SetCaBundle", "/b"),
				c.start("SetCaBundle", "/c")}
			return c
		}, nil},
	}
}

func TestACancelEndsEachCallInEachPhase(t *testing.T) {
	t.Parallel()
	for _, s := range stuckCalls(t) {
		for _, c := range cancellers() {
			t.Run(s.name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				h := s.prepare(t)
				waited := naps()
				for _, r := range c.run(h.host, h.op, h.args, h.others...) {
					// If a Handshake begins after another one was cancelled, it
					// is refused. That is no failure of this test.
					if len(h.others) > 0 && r.N == -1 &&
						r.Text == "tls.Handshake: handle 1: its "+
							"handshake failed; only tls.Close is "+
							"possible" {
						continue
					}
					if r.N != -1 || !strings.HasPrefix(r.Text, "tls.") ||
						!strings.HasSuffix(r.Text,
							": cancelled by the caller") {
						t.Errorf("%s gives %d, %q; want -1, and the text "+
							"\"…: cancelled by the caller\"", r.op, r.N,
							r.Text)
					}
				}
				// If tlsd does not end a cancelled call within 5 s, the plugin
				// closes the session, and the call fails with the same text. The
				// call must not end in this way.
				if d := waited(); d > 4*time.Second {
					t.Errorf("the cancelled %s has lasted %v; want at most 4s",
						h.op, d)
				}
				if s.after != nil {
					s.after(t, h.host)
				}
			})
		}
	}
}

// naps starts a clock that sleeps again and again, and counts 10 ms for each sleep. The function
// that it returns stops the clock and returns the sum. On a busy machine a sleep lasts longer than
// 10 ms, but the call under test takes longer, too. So the sum is about the same on every machine.
func naps() func() time.Duration {
	const nap = 10 * time.Millisecond
	stop, total := make(chan struct{}), make(chan time.Duration)
	go func() {
		for slept := time.Duration(0); ; slept += nap {
			select {
			case <-stop:
				total <- slept
				return
			case <-time.After(nap):
			}
		}
	}()
	return func() time.Duration { close(stop); return <-total }
}

// silentPort returns a port where the kernel accepts connections, and where no byte is ever sent.
func silentPort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().(*net.TCPAddr).Port
}

// fullQueue returns the path of a Unix socket whose queue is full, so that a connect waits.
func fullQueue(t *testing.T) string {
	t.Helper()
	path := filepath.Join(nowhere(t), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := firstError(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}),
		syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", path) // fills the queue
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return path
}

func TestACancelWithoutACallDoesNothing(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	h.send("catch", 0).gives(0, "")
	for range 3 {
		for range 50 {
			h.send("Cancel").gives(0, "")
		}
		call := h.start("Subject", 1)
		// no message about the cancels comes before this request
		p.result(p.expect("tls.PeerCertSubject", "[1]"), `"data"`)
		call.gives(4, "data")
	}
}

func TestACancelBeforeTheFirstCallDoesNothing(t *testing.T) {
	t.Parallel()
	d := newStandIn(t)
	h := startHost(t, d.env())
	h.send("Cancel").gives(0, "")
	backendIs(t, h, d, "openssl")
}

// cancelled reads one notification for each of the ids, in any order. A notification tells tlsd
// that the call with the id is cancelled.
func (p *peer) cancelled(ids ...int64) {
	p.t.Helper()
	want, got := map[string]bool{}, map[string]bool{}
	for _, id := range ids {
		want[fmt.Sprintf("[%d]", id)] = true
		r := p.request()
		if r.Method != "$/cancelRequest" || r.ID != nil {
			p.t.Fatalf("the plugin sends %s; want $/cancelRequest without an id",
				r.Method)
		}
		got[string(r.Params)] = true
	}
	if !maps.Equal(got, want) {
		p.t.Errorf("the plugin cancels %v; want %v", got, want)
	}
}

// For each waiting call, tls_Cancel sends one notification to tlsd. A second tls_Cancel sends none.
func TestACancelTellsTLSDOnceOfEachCall(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	var calls []*pending
	var ids []int64
	for i := range 5 {
		calls = append(calls, h.start("Handshake", i+1))
		ids = append(ids, p.expect("tls.Handshake", fmt.Sprintf("[%d,1]", i+1)))
	}
	h.send("Cancel").gives(0, "")
	p.cancelled(ids...)
	h.send("Cancel").gives(0, "") // all waiting calls are cancelled already
	later := h.start("Subject", 9)
	laterID := p.expect("tls.PeerCertSubject", "[9]")

	// Each cancelled call ends with tlsd's answer, even if the answer says that the call has
	// succeeded. The answers may come in any order.
	p.fail(ids[3], "tls.Handshake: cancelled by the caller")
	calls[3].fails("tls.Handshake: cancelled by the caller")
	p.result(ids[0], "0") // as if tlsd had answered before it got the notification
	calls[0].gives(0, "")
	p.result(laterID, `"later"`)
	later.gives(5, "later")
	for _, i := range []int{1, 2, 4} {
		p.fail(ids[i], "tls.Handshake: cancelled by the caller")
		calls[i].fails("tls.Handshake: cancelled by the caller")
	}
	p.client(h, 6)
}

// If tlsd does not answer a cancelled call within 5 s, the plugin closes the session. All its calls
// end, and the next call opens a new session.
func TestATLSDThatDoesNotEndACancelledCallIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(accept, shake int64) string{
		"no answer": func(_, _ int64) string { return "" },
		"half an answer": func(accept, _ int64) string {
			return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,`, accept)
		},
		"an answer to another": func(_, shake int64) string {
			return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":0}`+"\n", shake)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, h, p := opened(t)
			shake := h.start("Handshake", 1)
			shakeID := p.expect("tls.Handshake", "[1,1]")
			accept := h.start("Accept", 2, "::", 1)
			acceptID := p.expect("tls.Accept", `[2,"::",1,1]`)
			puts(t, p.conn, answer(acceptID, shakeID))
			began := time.Now()
			h.send("Cancel").gives(0, "")
			_, err := io.Copy(io.Discard, p.in) // until the plugin closes the session
			if wait := time.Since(began); err != nil || wait < 4*time.Second {
				t.Errorf("the plugin closes the session after %v, and reading "+
					"ends with the error %v; want at least 4s, and no error",
					wait, err)
			}
			if r := accept.wait(); r.N != -1 ||
				!strings.HasSuffix(r.Text, ": cancelled by the caller") {
				t.Errorf("the cancelled Accept gives %d, %q; want -1, and "+
					"\"…: cancelled by the caller\"", r.N, r.Text)
			}
			shake.wait()
			const why = "lost: tlsd has not ended a cancelled call in time"
			h.send("Read", 1, 10).fails("tls.Read: handle 1: " + why)
			client := h.start("NewClient", "again", 1)
			p, _ = d.session()
			p.result(p.expect("tls.NewClient", `["again",1]`), "2")
			client.gives(2, "")
		})
	}
}

// If tlsd does not end a cancelled call in time, the plugin closes the session. A call that began
// after the tls_Cancel then fails, too, with the kind lost.
func TestACallThatBeganAfterTheCancelIsNotCancelledButCanBeLost(t *testing.T) {
	t.Parallel()
	_, h, p := opened(t)
	shake := h.start("Handshake", 1)
	id := p.expect("tls.Handshake", "[1,1]")
	h.send("Cancel").gives(0, "")
	p.cancelled(id)
	later := h.start("Accept", 2, "::", 1)
	p.expect("tls.Accept", `[2,"::",1,1]`)
	io.Copy(io.Discard, p.in)
	results := []result{shake.wait(), later.wait()}
	for i, want := range []string{"tls.Handshake: handle 1: cancelled by the caller",
		"tls.Accept: handle 2: lost: tlsd has not ended a cancelled call in time"} {
		if r := results[i]; r.N != -1 || r.Text != want {
			t.Errorf("a call gives %d, %q; want -1, %q", r.N, r.Text, want)
		}
	}
}

// clogged starts a Handshake of handle 1, which the stand-in has read, and the calls of clog. It
// returns all calls.
func clogged(t *testing.T) (h *host, p *peer, shakeID int64, calls []*pending) {
	t.Helper()
	_, h, p = opened(t)
	shake := h.start("Handshake", 1)
	shakeID = p.expect("tls.Handshake", "[1,1]")
	return h, p, shakeID, h.clog(p, shake)
}

// While tlsd does not read, requests wait to be sent. tls_Cancel ends the calls of these requests,
// too. If tlsd never reads, the plugin closes the session after 5 s.
func TestACancelWhileARequestIsSent(t *testing.T) {
	t.Parallel()
	for name, reads := range map[string]bool{"that tlsd reads in the end": true,
		"that tlsd does not read": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, p, shakeID, calls := clogged(t)
			began := time.Now()
			if reads {
				go func() {
					p.fail(shakeID, "tls.Handshake: handle 1: cancelled by "+
						"the caller")
					for {
						r, err := p.read()
						if err != nil {
							return
						}
						if r.ID != nil {
							p.fail(*r.ID, "tls.Accept: handle 1: "+
								"cancelled by the caller")
						}
					}
				}()
			}
			for _, c := range calls {
				// tls_Cancel does not end a call that has not begun. So this loop
				// calls tls_Cancel until the call ends.
				for done := false; !done; {
					h.send("Cancel").gives(0, "")
					select {
					case r := <-c.Result():
						done = true
						if r.N != -1 || !strings.HasSuffix(r.Text,
							": cancelled by the caller") &&
							!strings.HasSuffix(r.Text,
								"cancelled call in time") {
							t.Errorf("%s gives %d, %q; want -1, and a "+
								"text about the cancel", c.Op,
								r.N, r.Text)
						}
					case <-time.After(10 * time.Millisecond):
					}
				}
			}
			if reads {
				return
			}
			if wait := time.Since(began); wait < 4*time.Second {
				t.Errorf("the plugin closes the session after %v; want at least 4s",
					wait)
			}
			h.send("Read", 1, 10).fails("tls.Read: handle 1: lost: tlsd has not " +
				"ended a cancelled call in time")
		})
	}
}

// A Close must free the handle even if tls_Cancel ends it. So the plugin sends a Close that waits
// for its turn to be sent, and then the notification that it is cancelled.
func TestACloseThatIsCancelledBeforeItIsSentReachesTLSD(t *testing.T) {
	t.Parallel()
	for op, method := range map[string]string{"Close": "tls.Close",
		"CloseServerContext": "tls.CloseServerContext"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			h, p, shakeID, calls := clogged(t)
			closing := h.start(op, 2)
			h.untilThreadsWait(len(calls) + 1)
			h.send("Cancel").gives(0, "")
			p.fail(shakeID, "tls.Handshake: handle 1: cancelled by the caller")
			var closeID int64
			for closeID == 0 {
				switch r := p.request(); {
				case r.Method == method:
					closeID = *r.ID
				case r.ID != nil:
					p.fail(*r.ID, r.Method+": cancelled by the caller")
				}
			}
			for want := fmt.Sprintf("[%d]", closeID); ; {
				r := p.request()
				if r.Method != "$/cancelRequest" {
					t.Fatalf("after %s the plugin sends %s; want "+
						"$/cancelRequest for %s", method, r.Method, want)
				}
				if string(r.Params) == want {
					break
				}
			}
			p.fail(closeID, method+": handle 2: cancelled by the caller")
			closing.fails(method + ": handle 2: cancelled by the caller")
			for _, c := range calls {
				if r := c.wait(); r.N != -1 {
					t.Errorf("the cancelled %s gives %d, want -1", c.Op, r.N)
				}
			}
		})
	}
}

// If tls_Cancel ends a call that waits for the answer to tls.Hello, the plugin gives up this
// session. A call that begins later opens another one.
func TestALaterCallOpensAnotherSessionThanTheOneThatIsGivenUp(t *testing.T) {
	t.Parallel()
	d := newStandIn(t)
	h := startHost(t, d.env())
	for i := range 20 {
		first := h.start("NewClient", "first", 1)
		p := d.accept()
		p.helloOnly() // the first session's tls.Hello gets no answer
		h.send("Cancel").gives(0, "")
		later := h.start("NewClient", "later", 1)
		first.fails("tls.NewClient: cancelled by the caller")
		q, _ := d.session()
		q.result(q.expect("tls.NewClient", `["later",1]`), fmt.Sprint(i+1))
		later.gives(int64(i+1), "")
		q.conn.Close()
		h.send("Handshake", i+1).fails("tls.Handshake: handle")
	}
}

// If a forked child calls tls_Cancel, its own calls end, and its parent's calls go on.
func TestACancelInAChildIsNoneInItsParent(t *testing.T) {
	t.Parallel()
	d, h, p := opened(t)
	read := h.start("Subject", 1)
	id := p.expect("tls.PeerCertSubject", "[1]")
	h.send("fork").gives(0, "")
	h.send("Cancel").gives(0, "") // the child has made no other call yet
	client := h.start("NewClient", "child", 1)
	c, _ := d.session()
	c.result(c.expect("tls.NewClient", `["child",1]`), "2")
	client.gives(2, "")
	shake := h.start("Handshake", 2)
	shakeID := c.expect("tls.Handshake", "[2,1]")
	h.send("Cancel").gives(0, "")
	c.cancelled(shakeID)
	c.fail(shakeID, "cancelled")
	shake.fails("cancelled")
	h.send("exit")
	h.child().gives(0, "")
	p.result(id, `"the parent's"`)
	read.reads("the parent's")
	p.client(h, 3)
}

// Eight threads make calls, while tls_Cancel is called at random from a thread and from a signal
// handler. Each call succeeds or is cancelled.
func TestCallsUnderFireEndAndNothingIsLost(t *testing.T) {
	t.Parallel()
	d := startTLSD(t)
	ca, port := echo(t)
	for _, c := range []struct {
		flavour *flavour
		rounds  int
	}{{plain, 300}, {asan, 100}, {tsan, 60}} {
		t.Run(c.flavour.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*testkit.Patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, c.flavour.program(t, "testdata/fire.c"),
				c.flavour.library(t), "localhost", fmt.Sprint(port), ca,
				fmt.Sprint(c.rounds))
			cmd.Env = append(append(os.Environ(), d.env(), "TLSD_AUTOSTART=0"),
				c.flavour.env...)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			var calls, cancelled int
			if _, scan := fmt.Sscanf(string(out), "calls %d cancelled %d\n", &calls,
				&cancelled); err != nil || scan != nil || cancelled == 0 ||
				cancelled == calls {
				t.Errorf("testdata/fire.c: %v; want some calls cancelled, and "+
					"others not:\n%s%s", err, out, stderr.String())
			}
			t.Logf("%s", out)
		})
	}
}
