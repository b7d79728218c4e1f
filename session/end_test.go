package session_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/kind"
	"tlsd/internal/sockets"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// The method gone ends the session, and checks that no context and no connection of it is left.
func (r *rig) gone() {
	r.t.Helper()
	r.End()
	if contexts, conns := r.eng.Open(); contexts != 0 || conns != 0 {
		r.t.Errorf("%d contexts and %d connections are open after End, want none", contexts,
			conns)
	}
}

func TestEndOfAnIdleSession(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.client(r.echo())
	r.handle(r.NewClient("localhost", r.echo()))
	r.listening()
	r.ok(r.SetCaBundle(r.ca.File))
	r.gone()
}

// TestEndEndsWaitingCalls: waiting calls end at once, with kind cancelled and the reason. Only the
// Read may have another reason, because a Close of its connection waits for it.
func TestEndEndsWaitingCalls(t *testing.T) {
	t.Parallel()
	r := newRig(t, timeouts(session.Timeouts{Connect: era, Handshake: era,
		AcceptHandshake: era, Write: era}))
	port := testkit.Port(t)
	read, silent, ctx := r.client(r.echo()), r.handle(r.NewClient("localhost",
		testkit.Silent(t))), r.server()
	full := r.client(testkit.Serve(t, func(nc net.Conn) {
		deaf(r, nc)
		<-t.Context().Done()
	}))
	calls := map[string]*running{
		"Read":         r.start(r.Read(read, 1)),
		"Write":        r.start(r.Write(full, make([]byte, 16<<20))),
		"Handshake":    r.start(r.Handshake(silent)),
		"behind it":    r.start(r.Read(silent, 1)),
		"Accept":       r.start(r.Accept(ctx, local, port)),
		"connect":      r.start(r.NewClient(local, testkit.Unanswered(t))),
		"look-up":      r.start(r.NewClient(slowName(), 443)),
		"listen, name": r.start(r.Accept(ctx, slowName(), 443)),
	}
	dialTCP(t, port) // waits until the Accept listens, and does no handshake
	closing := r.start(r.Close(read))
	late := r.Read(silent, 1)

	go func() { late.Run() }() // End waits for each call that was made, so each must be run
	r.gone()
	for name, c := range calls {
		if e := c.fails(kind.Cancelled); !strings.Contains(e.Why, "session ended") &&
			name != "Read" {
			t.Errorf("%s: the error's reason is %q, want \"session ended\" in it", name,
				e.Why)
		}
	}
	closing.ok()
	unlistened(t, port)
}

// TestEndAtAnyMoment makes random calls, and ends the session while some of them still run. All
// calls must end, none with an internal error. No context and no connection must be left.
func TestEndAtAnyMoment(t *testing.T) {
	t.Parallel()
	rounds := 30
	if testing.Short() {
		rounds = 10
	}
	for i := range rounds {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			rnd := rand.New(rand.NewPCG(seed, 0))
			t.Logf("seed %d", seed)
			r := newRig(t)
			echo, silent, listen := r.echo(), testkit.Silent(t), testkit.Port(t)

			var outside sync.WaitGroup
			defer outside.Wait()
			client := func() {
				nc, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", listen))
				if err != nil {
					return
				}
				defer nc.Close()
				switch rand.IntN(3) {
				case 0:
					deafClient(r, nc)
				case 1:
					fmt.Fprint(nc, "GET / HTTP/1.0\r\n\r\n")
				}
			}

			var calls []*running
			h := func() session.Handle { return session.Handle(rnd.IntN(12) + 1) }
			moves := []func() *session.Call{
				func() *session.Call { return r.NewClient("localhost", echo) },
				func() *session.Call { return r.NewClient("localhost", echo) },
				func() *session.Call { return r.NewClient("localhost", silent) },
				func() *session.Call {
					return r.NewServerContext(r.cert.CertFile, r.cert.KeyFile)
				},
				func() *session.Call { return r.Accept(h(), local, listen) },
				func() *session.Call { return r.Handshake(h()) },
				func() *session.Call { return r.Handshake(h()) },
				func() *session.Call {
					return r.Write(h(), make([]byte, rnd.IntN(100000)))
				},
				func() *session.Call { return r.Read(h(), 1000) },
				func() *session.Call { return r.Close(h()) },
				func() *session.Call { return r.CloseServerContext(h()) },
				func() *session.Call { return r.SetCaBundle(r.ca.File) },
				func() *session.Call { return r.SetCaBundle("/nonexistent") },
				func() *session.Call { return r.PeerCertSubject(h()) },
				func() *session.Call { return r.ConnectionVersion(h()) },
				func() *session.Call { return r.SetInsecureSkipVerify(h(), true) },
				func() *session.Call { return r.LastError() },
			}
			for range 20 + rnd.IntN(100) {
				calls = append(calls, r.start(moves[rnd.IntN(len(moves))]()))
				switch rnd.IntN(8) {
				case 0:
					calls[rnd.IntN(len(calls))].Cancel()
				case 1:
					outside.Go(client)
				case 2:
					pause := time.Duration(rnd.IntN(5)) * time.Millisecond
					select { // let something happen
					case <-calls[rnd.IntN(len(calls))].done:
					case <-time.After(pause):
					}
				}
			}
			r.gone()
			for _, c := range calls {
				if _, err := c.wait(); err != nil {
					if e := err.(*session.Error); e.Kind == kind.Internal {
						t.Errorf("a call has failed with an internal "+
							"error: %v", e)
					}
				}
			}
			if n := r.Busy(); n != 0 {
				t.Errorf("%d calls have not ended with the session, want 0", n)
			}
		})
	}
}

// TestListenerOutOfDescriptors: if the process has no free descriptor, a waiting Accept fails with
// EMFILE. When descriptors are free again, clients are served. The test runs in a process of its
// own.
func TestListenerOutOfDescriptors(t *testing.T) {
	t.Parallel()
	const child = "TLSD_TEST_OUT_OF_DESCRIPTORS"
	if os.Getenv(child) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0],
			"-test.run=^TestListenerOutOfDescriptors$", "-test.count=1", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil ||
			!strings.Contains(string(out), "--- PASS: TestListenerOutOfDescriptors") {
			t.Errorf("this test must pass in a process of its own: %v\n%s", err, out)
		}
		return
	}
	r := newRig(t)
	ctx, port := r.listening()
	fd, err := sockets.New(syscall.AF_INET, syscall.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: 64})
	if err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	for {
		f, err := os.Open("/dev/null")
		if err != nil {
			break
		}
		files = append(files, f)
	}
	c := r.start(r.Accept(ctx, local, port))
	err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	if e := c.fails(kind.IO); e.Errno != "EMFILE" || !strings.Contains(e.Why, "accept on") {
		t.Errorf("the errno is %q and the error %q, want EMFILE and \"accept on\" in "+
			"the error", e.Errno, e)
	}
	for _, f := range files {
		f.Close()
	}
	c = r.start(r.Accept(ctx, local, port))
	syscall.Shutdown(fd, syscall.SHUT_WR) // so that the handshake of the waiting client fails
	for {
		if _, err := c.wait(); err.(*session.Error).Kind != kind.IO {
			break
		}
		c = r.start(r.Accept(ctx, local, port)) // the last Accept still got EMFILE
	}
	c.fails(kind.Handshake)
	syscall.Close(fd)
	c = r.start(r.Accept(ctx, local, port))
	r.dial(port)
	c.ok()
}
