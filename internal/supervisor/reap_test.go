package supervisor

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"tlsd/internal/testkit"
)

// traced starts a process that traces the worker with this pid, until the test ends or calls letGo.
func traced(t *testing.T, pid int) (letGo func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{fmt.Sprintf("TRACE=%d", pid)}
	in, err := cmd.StdinPipe()
	testkit.Must(t, err)
	out, err := cmd.StdoutPipe()
	testkit.Must(t, err)
	testkit.Must(t, cmd.Start())
	letGo = func() { in.Close(); cmd.Wait() }
	t.Cleanup(letGo)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "traced\n" {
		t.Skipf("this machine does not allow a process to trace another: %s, %v", line, err)
	}
	return letGo
}

// A killed worker that another process traces ends only when the tracer lets it go. The supervisor
// does not wait for the tracer: it tells the caller the reason, serves other callers, and can stop.
func TestATracedWorkerThatIsDeadHoldsUpNobody(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"the worker is killed", "the daemon stops in good order",
		"the daemon stops by force"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			d := startDaemon(t, workerPlay{}, nil)
			c := d.dial()
			pid := c.pid()
			letGo := traced(t, pid)
			// Go's runtime sends its threads such signals. The tracer passes them on.
			testkit.Must(t, preempt(pid))
			switch how {
			case "the worker is killed":
				d.eachWorker(func(w *worker) {
					if w.pid == pid {
						w.kill()
					}
				})
				c.told("was killed (SIGKILL), and another process keeps " +
					"it from ending")
				const text = "worker was killed and does not end; it is left behind"
				if f := d.logged(text, 1); f["tracer"] == "" || f["tracer"] == "0" {
					t.Errorf("the log does not name the tracer: %v", f)
				}
				d.dial().pid() // other callers are served
				letGo()
				// When a worker ends, the supervisor also reaps the workers that
				// it has noted as left behind. It notes this worker only after it
				// has logged the text. So the end of one other worker may come
				// too early, and the test ends workers until the process is gone.
				d.until("the worker that was left behind is reaped", func() bool {
					other := d.dial()
					other.pid()
					other.say("bye")
					_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
					return err != nil
				})
				return
			case "the daemon stops in good order":
				d.stop()
				c.say("bye")
			case "the daemon stops by force":
				d.stop()
				d.logged("stopping", 1)
				d.force()
			}
			d.wait()
			d.logged("stopped", 1)
		})
	}
}

// A worker that sends a forbidden message is killed, and its caller gets the reason.
func TestAWorkerThatBreaksTheRulesOfItsChannelIsKilled(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	other := d.dial()
	pid := other.pid()
	for n, how := range []string{"ready again", "nothing", "nonsense", "talk"} {
		c := d.dial()
		c.pid()
		c.say(how)
		c.told("was killed because it broke the rules of its channel to tlsd")
		d.logged("worker breaks the rules of its channel, and is killed", n+1)
	}
	if other.pid() != pid {
		t.Error("another session has got another worker")
	}
}

// A worker that was taken over can send any message and any descriptors to the supervisor. The only
// effect is its own end: other sessions go on, and the log gets no control characters.
func TestAWorkerThatSendsGarbageHarmsNobodyElse(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	other := d.dial()
	pid := other.pid()
	for seed := range 30 {
		d.dial().ask("who")
		c := d.dial()
		c.say(fmt.Sprintf("garbage\n%d", seed))
		c.in.ReadString('\n') // "said", or the line about the loss
		c.Close()
		d.dial().orderly() // ends the row of deaths, so that no session has to wait
	}
	if other.pid() != pid {
		t.Error("another session has got another worker")
	}
	d.stop()
	d.force()
	d.wait() // now the daemon has read all messages
	killed := d.logs.FilterMessage(
		"worker breaks the rules of its channel, and is killed").Len()
	if killed == 0 || killed == 30 {
		t.Errorf("%d of 30 workers were killed for their garbage; want some, and not all",
			killed)
	}
	for _, e := range d.logs.All() {
		text := fmt.Sprint(e.Message, e.ContextMap())
		if strings.ContainsAny(text, "\x1b\a\x00") {
			t.Errorf("a control character is in the log: %q", text)
		}
	}
}

// orderly makes the session end in good order.
func (c *caller) orderly() {
	c.t.Helper()
	c.say("bye")
	c.cut()
}
