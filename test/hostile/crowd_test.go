package hostile

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// 1,000 callers open sessions and hang up in many different states. They leave nothing: no extra
// worker, no zombie, no descriptor, no connection to a peer. The same holds if more callers come at
// once than --max-sessions allows.
func TestAThousandSessionsDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const sessions, atOnce = 1000, 24
	for name, allowed := range map[string]int{"as many as come": sessions + 2,
		"fewer than come": atOnce / 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			overModes(t, []string{fmt.Sprintf("--max-sessions=%d", allowed)},
				func(t *testing.T, d *testd.Daemon) {
					echo, open := w.echo(t)
					tk := w.talk(t, d.Dial(t), echo)
					serves(t, d)
					own := 1
					if strings.HasSuffix(t.Name(), "/session") {
						own = 2 // the worker of tk, and the spare worker
					}
					workers(t, d, own)
					files, workerFiles := len(testkit.OpenFiles(t, d.PID)),
						len(testkit.OpenFiles(t, workerOf(t, tk.c)))

					seed := rand.Uint64()
					t.Logf("seed %d", seed)
					var crowd sync.WaitGroup
					var refused, done atomic.Int64
					for i := range atOnce {
						random := rand.New(rand.NewPCG(seed, uint64(i)))
						crowd.Go(func() {
							for n := i; n < sessions; n += atOnce {
								if err := drop(d.Socket, echo, w,
									random,
									&refused); err != nil {
									t.Errorf("session %d: %v",
										n, err)
								}
								done.Add(1)
							}
						})
					}
					tk.works(t)
					crowd.Wait()
					t.Logf("%d sessions, %d of them turned away", done.Load(),
						refused.Load())
					n, room := refused.Load(), allowed > sessions
					if room != (n == 0) {
						t.Errorf("tlsd refused %d of %d sessions with "+
							"--max-sessions=%d; want none if "+
							"the limit is higher than the number "+
							"of sessions, and some otherwise",
							n, sessions, allowed)
					}
					tk.works(t)
					testkit.Until(t, "the peer has only tk's connection",
						func() bool { return open() == 1 })
					workers(t, d, own)
					settled(t, d.PID, files)
					settled(t, workerOf(t, tk.c), workerFiles)
					serves(t, d)
					for _, bad := range []string{`"level":"error"`,
						"unexpectedly"} {
						if log := d.Log(t); strings.Contains(log, bad) {
							t.Errorf("the log has %s, want none", bad)
						}
					}
				})
		})
	}
}

// drop opens a session, and hangs up in a state that it chooses at random. refused counts the
// sessions that tlsd has refused.
func drop(socket string, echo int, w *world, random *rand.Rand, refused *atomic.Int64) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	in := bufio.NewReader(conn)
	// say ignores errors, because a write fails if tlsd has refused the session.
	say := func(text string) { io.WriteString(conn, text) }
	hear := func(want string) error {
		line, err := in.ReadString('\n')
		// If the caller writes after tlsd has refused it, it may get a reset instead of the
		// reason.
		if strings.Contains(line, `"kind":"limit"`) || isReset(err) {
			refused.Add(1)
			return nil
		}
		if err != nil || !strings.Contains(line, want) {
			return fmt.Errorf("tlsd's answer is %q (%v), want %s", line, err, want)
		}
		return nil
	}
	connected := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tls.SetCaBundle","params":[%q]}
{"jsonrpc":"2.0","id":2,"method":"tls.NewClient","params":["127.0.0.1",%d]}
{"jsonrpc":"2.0","id":3,"method":"tls.Handshake","params":[1]}
`, w.ca.File, echo)
	// The comment of each case says when the caller hangs up.
	switch random.IntN(9) {
	case 0: // at once
	case 1: // before it reads the answer
		say(backend)
	case 2: // after the answer
		say(backend)
		return hear(`"result":"openssl"`)
	case 3: // in the middle of a line
		say(backend + backend[:random.IntN(len(backend))])
		return hear(`"result":"openssl"`)
	case 4: // while a handshake and a Read are in flight
		say(connected + `{"jsonrpc":"2.0","id":4,"method":"tls.Read","params":[1,100]}` +
			"\n")
	case 5: // while a Read waits, or in the middle of a Write
		say(connected)
		if err := hear(`"result":`); err != nil {
			return err
		}
		say(`{"jsonrpc":"2.0","id":4,"method":"tls.Read","params":[1,100]}` + "\n")
		if random.IntN(2) == 0 {
			say(`{"jsonrpc":"2.0","id":5,"method":"tls.Write","params":[1,"` +
				strings.Repeat("AAAA", random.IntN(30000)))
		}
	case 6: // while an Accept waits, or after it has failed because its port is in use
		say(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tls.NewServerContext","params":[%q,%q]}
{"jsonrpc":"2.0","id":2,"method":"tls.Accept","params":[1,"127.0.0.1",%d]}
`, w.cert.CertFile, w.cert.KeyFile, 20000+random.IntN(10000)))
		return hear(`"result":1`)
	case 7: // after a half close and the answer
		say(backend)
		conn.CloseWrite()
		return hear(`"result":"openssl"`)
	case 8: // after the answer to nonsense
		say("nonsense\n")
		return hear(`"kind":"params"`)
	}
	return nil
}
