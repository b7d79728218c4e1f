package hostile

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// Callers that break the rules.

// If a caller does not read its answers, tlsd drops it after --answer-timeout. Other sessions go on
// meanwhile.
func TestACallerThatDoesNotRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port, _ := w.echo(t)
	const bound = 2 * time.Second
	overModes(t, []string{"--answer-timeout=" + bound.String()},
		func(t *testing.T, d *testd.Daemon) {
			tk := w.talk(t, d.Dial(t), port)
			deaf := rawDial(t, d)
			// When tlsd drops the deaf caller, it must also free the caller's handle.
			_, err := fmt.Fprintf(deaf,
				`{"jsonrpc":"2.0","id":1,"method":"tls.NewClient","params":["127.0.0.1",%d]}`+"\n", port)
			testkit.Must(t, err)
			begin := time.Now()
			stuffed := make(chan error, 1)
			go func() {
				for {
					if _, err := io.WriteString(deaf,
						strings.Repeat(backend, 100)); err != nil {
						stuffed <- err
						return
					}
				}
			}()
			slowest := time.Duration(0)
			for ended := false; !ended; {
				select {
				case err := <-stuffed:
					if ne, ok := err.(net.Error); ok && ne.Timeout() {
						t.Fatal("tlsd has not dropped the deaf caller")
					}
					ended = true
				default:
					one := time.Now()
					tk.works(t)
					slowest = max(slowest, time.Since(one))
				}
			}
			if took := time.Since(begin); took < bound {
				t.Errorf("tlsd dropped the deaf caller after %v, before "+
					"--answer-timeout=%v", took, bound)
			}
			t.Logf("the caller is dropped after %v; meanwhile the slowest exchange "+
				"of the other session took %v", time.Since(begin), slowest)
			tk.works(t)
			testkit.Until(t, "the log says why tlsd dropped the caller", func() bool {
				return strings.Contains(d.Log(t), "has not read an answer within")
			})
		})
}

// When a caller is killed, even in the middle of a message, the daemon frees everything that the
// caller had.
func TestACallerThatIsKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, rest := range []struct{ name, begin string }{
		{"between two messages", ``},
		{"in a line", `{"jsonrpc":"2.0","id":99,"method":"tls.Wri`},
		{"in a line of megabytes",
			`{"jsonrpc":"2.0","id":99,"method":"tls.Write","params":[1,"` +
				strings.Repeat("AAAA", 1<<20)},
	} {
		t.Run(rest.name, func(t *testing.T) {
			t.Parallel()
			overModes(t, nil, func(t *testing.T, d *testd.Daemon) {
				echo, open := w.echo(t)
				tk := w.talk(t, d.Dial(t), echo)
				own := 1
				if strings.HasSuffix(t.Name(), "/session") {
					own = 2 // the worker of tk, and the spare worker
				}
				workers(t, d, own)
				before, supervisors := len(testkit.OpenFiles(t, workerOf(t, tk.c))),
					len(testkit.OpenFiles(t, d.PID))
				port := testkit.Port(t)
				// The caller has a Read that waits, and an Accept that waits.
				// Later a client connects by TCP. It does no handshake, and so
				// it is never accepted.
				caller, gone := startCaller(t, d, fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tls.SetCaBundle","params":[%q]}
{"jsonrpc":"2.0","id":2,"method":"tls.NewClient","params":["127.0.0.1",%d]}
{"jsonrpc":"2.0","id":3,"method":"tls.Handshake","params":[1]}
{"jsonrpc":"2.0","id":4,"method":"tls.NewServerContext","params":[%q,%q]}
{"jsonrpc":"2.0","id":5,"method":"tls.Accept","params":[2,"127.0.0.1",%d]}
{"jsonrpc":"2.0","id":6,"method":"tls.Read","params":[1,100]}
%s`, w.ca.File, echo, w.cert.CertFile, w.cert.KeyFile, port, rest.begin))
				testd.AwaitListener(t, port)
				testkit.Until(t, "both connections are open",
					func() bool { return open() == 2 })
				pending, err := net.Dial("tcp", testkit.Addr(port))
				testkit.Must(t, err)
				defer pending.Close()
				testkit.Must(t, caller.Process.Kill())
				<-gone

				testkit.Until(t, "the killed caller's connection is closed",
					func() bool { return open() == 1 })
				pending.SetDeadline(time.Now().Add(testkit.Patience))
				if n, err := pending.Read(make([]byte, 1)); n != 0 || err == nil ||
					isTimeout(err) {
					t.Errorf("the client without a handshake reads %d bytes, "+
						"%v; want its connection closed", n, err)
				}
				testkit.Until(t, "the killed caller's port is free", func() bool {
					return !testd.Listening(t, port)
				})
				workers(t, d, own)
				settled(t, workerOf(t, tk.c), before)
				settled(t, d.PID, supervisors)
				tk.works(t)
			})
		})
	}
}

const callerEnv = "HOSTILE_TEST_CALLER"

// startCaller starts a process that connects to the daemon, sends a text, and then reads answers
// until it is killed.
func startCaller(t *testing.T, d *testd.Daemon, text string) (*exec.Cmd, <-chan struct{}) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", d.Socket)
	cmd.Env = append(os.Environ(), callerEnv+"=1")
	cmd.Stdin = strings.NewReader(text)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	testkit.Must(t, err)
	gone := start(t, cmd)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the caller's process prints %q, %v; want a line", line, err)
	}
	return cmd, gone
}

func playCaller(args []string) int {
	conn, err := net.Dial("unix", args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go io.Copy(io.Discard, conn)
	if _, err := io.Copy(conn, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("sent")
	select {}
}
