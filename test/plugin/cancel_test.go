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
	"unsafe"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
)

// tls_Cancel ends each call in each phase. It loses nothing else.

// A canceller is a way to call tls_Cancel while a call waits. Each way calls it again and again,
// because tls_Cancel does not affect calls that begin later.
type canceller struct {
	name string
	// start begins the call that will be cancelled.
	start func(h *host, op string, args ...any) *pending
	// cancel is called from time to time until the call has ended.
	cancel func(h *host)
	// end brings the host to rest.
	end func(h *host)
}

func cancellers() []canceller {
	threads := func(h *host, op string, args ...any) *pending { return h.start(op, args...) }
	nothing := func(*host) {}
	list := []canceller{{"another thread", threads,
		func(h *host) { h.send("Cancel").gives(0, "") }, nothing}}
	for name, flags := range map[string]int{"": 0, ", SA_RESTART": 0x10000000} {
		list = append(list,
			// In the thread that waits, while the host's main thread waits for
			// commands.
			canceller{"a handler in the waiting thread" + name,
				func(h *host, op string, args ...any) *pending {
					h.send("catch", flags).gives(0, "")
					return h.start(op, args...)
				},
				func(h *host) { h.send("interrupt").gives(0, "") }, nothing},
			// In a host of one thread.
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

// run makes the call, and cancels until it and the others have ended.
func (c canceller) run(h *host, op string, args []any, others ...*pending) (results []result) {
	h.t.Helper()
	defer c.end(h)
	for _, call := range append(others, c.start(h, op, args...)) {
		for end := time.Now().Add(testkit.Patience); ; {
			select {
			case r := <-call.Result():
				results = append(results, r)
			case <-h.Left:
				h.t.Fatalf("%s: the host has ended", call.Op)
			case <-time.After(10 * time.Millisecond):
				if time.Now().After(end) {
					h.t.Fatalf("%s is not cancelled", call.Op)
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
	after   func(t *testing.T, h *host) // shows what lives on
}

type stuckHost struct {
	*host
	op     string
	args   []any
	others []*pending // calls that wait too
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
			h.send("Read", 1, 100).reads("hello") // the cancelled one has taken nothing
			alive(t, h)
		}},
		{"Write to a peer that does not read", func(t *testing.T) *stuckHost {
			h := shaken(t, func(conn *tls.Conn) {
				conn.Handshake()
				<-t.Context().Done()
			})
			h.send("SetStrictWrites", 1).gives(0, "") // or it would not wait
			return call(h, "WriteZeros", 1, 16<<20)
		}, func(t *testing.T, h *host) {
			// A Close sends the data that was written before it, unless it is hurried.
			for _, r := range cancellers()[0].run(h, "Close", []any{1}) {
				// 0 if nothing had been sent
				if r.N != 0 && !strings.HasPrefix(r.Text, "tls.") {
					t.Errorf("a Close that is hurried gives %d, %q",
						r.N, r.Text)
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

		// Before there is a session.
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
					// One of several Handshakes may have begun after another
					// was cancelled.
					if len(h.others) > 0 && r.N == -1 &&
						r.Text == "tls.Handshake: handle 1: its "+
							"handshake failed; only tls.Close is "+
							"possible" {
						continue
					}
					if r.N != -1 || !strings.HasPrefix(r.Text, "tls.") ||
						!strings.HasSuffix(r.Text,
							": cancelled by the caller") {
						t.Errorf("%s gives %d, %q; want to be cancelled",
							h.op, r.N, r.Text)
					}
				}
				// The plugin gives up a silent tlsd after 5 s.
				if d := waited(); d > 4*time.Second {
					t.Errorf("the cancelled %s has waited for %v", h.op, d)
				}
				if s.after != nil {
					s.after(t, h.host)
				}
			})
		}
	}
}

// naps begins to take naps of 10 ms. The function that it returns ends that and says how long the
// naps were. On a busy machine each nap lasts longer than it counts, and so does everything else.
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

// silentPort is a port with a server that accepts and sends nothing.
func silentPort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() }) // the kernel accepts
	return ln.Addr().(*net.TCPAddr).Port
}

// fullQueue is the path of a socket where a connect waits for its place in the queue.
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
	conn, err := net.Dial("unix", path) // the queue's only place
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
		// it is the first request after the cancels
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

// cancelled reads the plugin's notifications about cancelled calls.
func (p *peer) cancelled(ids ...int64) {
	p.t.Helper()
	want, got := map[string]bool{}, map[string]bool{}
	for _, id := range ids {
		want[fmt.Sprintf("[%d]", id)] = true
		r := p.request()
		if r.Method != "$/cancelRequest" || r.ID != nil {
			p.t.Fatalf("the plugin sends %s; want a cancellation", r.Method)
		}
		got[string(r.Params)] = true
	}
	if !maps.Equal(got, want) {
		p.t.Errorf("the plugin cancels %v; want %v", got, want)
	}
}

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
	h.send("Cancel").gives(0, "") // has nobody left to cancel
	later := h.start("Subject", 9)
	laterID := p.expect("tls.PeerCertSubject", "[9]")

	// The answers of tlsd count, in any order.
	p.fail(ids[3], "tls.Handshake: cancelled by the caller")
	calls[3].fails("tls.Handshake: cancelled by the caller")
	p.result(ids[0], "0") // on its way
	calls[0].gives(0, "")
	p.result(laterID, `"later"`)
	later.gives(5, "later")
	for _, i := range []int{1, 2, 4} {
		p.fail(ids[i], "tls.Handshake: cancelled by the caller")
		calls[i].fails("tls.Handshake: cancelled by the caller")
	}
	p.client(h, 6)
}

func TestATLSDThatDoesNotEndACancelledCallIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer string // to an Accept with the id %[1]d
	}{
		"no answer":            {""},
		"half an answer":       {`{"jsonrpc":"2.0","id":%[1]d,`},
		"an answer to another": {`{"jsonrpc":"2.0","id":%[2]d,"result":0}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, h, p := opened(t)
			shake := h.start("Handshake", 1)
			shakeID := p.expect("tls.Handshake", "[1,1]")
			accept := h.start("Accept", 2, "::", 1)
			acceptID := p.expect("tls.Accept", `[2,"::",1,1]`)
			fmt.Fprintf(p.conn, c.answer+"%.0[1]d%.0[2]d", acceptID, shakeID)
			began := time.Now()
			h.send("Cancel").gives(0, "")
			_, err := io.Copy(io.Discard, p.in) // until the plugin leaves
			if wait := time.Since(began); err != nil || wait < 4*time.Second {
				t.Errorf("the plugin leaves after %v: %v", wait, err)
			}
			if r := accept.wait(); r.N != -1 ||
				!strings.HasSuffix(r.Text, ": cancelled by the caller") {
				t.Errorf("the Accept gives %d, %q", r.N, r.Text)
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
			t.Errorf("a call gives %d, %q", r.N, r.Text)
		}
	}
}

func TestACancelWhileARequestIsSent(t *testing.T) {
	t.Parallel()
	for name, reads := range map[string]bool{"that tlsd reads in the end": true,
		"that tlsd does not read": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, h, p := opened(t)
			shake := h.start("Handshake", 1)
			shakeID := p.expect("tls.Handshake", "[1,1]")
			calls := h.clog(p, shake)
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
				// those that have not begun are not cancelled
				for done := false; !done; {
					h.send("Cancel").gives(0, "")
					select {
					case r := <-c.Result():
						done = true
						if r.N != -1 || !strings.HasSuffix(r.Text,
							": cancelled by the caller") &&
							!strings.HasSuffix(r.Text,
								"cancelled call in time") {
							t.Errorf("%s gives %d, %q", c.Op,
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
				t.Errorf("the session is given up after %v", wait)
			}
			h.send("Read", 1, 10).fails("tls.Read: handle 1: lost: tlsd has not " +
				"ended a cancelled call in time")
		})
	}
}

// unread is the number of bytes that have arrived and that nobody has read.
func unread(t *testing.T, p *peer) (n int) {
	t.Helper()
	raw, err := p.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var value int32
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCINQ,
			uintptr(unsafe.Pointer(&value)))
	})
	if err != nil || errno != 0 {
		t.Fatal(err, errno)
	}
	return int(value)
}

func TestALaterCallOpensAnotherSessionThanTheOneThatIsGivenUp(t *testing.T) {
	t.Parallel()
	d := newStandIn(t)
	h := startHost(t, d.env())
	for i := range 20 {
		first := h.start("NewClient", "first", 1)
		p := d.accept()
		p.helloOnly() // and no answer
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

func TestACancelInAChildIsNoneInItsParent(t *testing.T) {
	t.Parallel()
	d, h, p := opened(t)
	read := h.start("Subject", 1)
	id := p.expect("tls.PeerCertSubject", "[1]")
	h.send("fork").gives(0, "")
	h.send("Cancel").gives(0, "") // before the child has called
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
				t.Errorf("fire: %v\n%s%s", err, out, stderr.String())
			}
			t.Logf("%s", out)
		})
	}
}
