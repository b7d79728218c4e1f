package tlsd

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tlsd/internal/testkit"
)

// These tests use up the memory of a worker, or of the machine.

// full returns how much memory the library could get, from the library's report in the log.
func full(t *testing.T, log string) (mebibytes float64) {
	t.Helper()
	text := untilLogged(t, log, "the library's report", func(text string) bool {
		return entry(text, "full") != nil
	})
	return entry(text, "full")["mebibytes"].(float64)
}

func TestMemoryOfAWorkerIsLimited(t *testing.T) {
	cause := regexp.MustCompile(
		`(ran out of memory|died of [a-zA-Z ]+ close to its limit of memory) \(--max-memory 96MiB\)`)
	t.Parallel()
	lib := faultyLibrary(t)
	port := echoServer(t)
	for mode, flags := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := testkit.Dir(t)
			sock, log := filepath.Join(dir, "s"), filepath.Join(dir, "log")
			startWith(t, nil, "exec 2>"+log+";",
				append([]string{"--socket", sock, "--log-format", "json",
					"--libssl", lib, "--max-memory", "96MiB"}, flags...)...)
			talkers := newTalkers(t, sock, port)
			// With fault 1010, the library takes all memory, and notices the allocation
			// that fails. So the worker goes on.
			talkers[0].order(1010)
			if got, err := talkers[0].hear(); !strings.Contains(got, `"result":"`) {
				t.Fatalf("the Read must succeed, because the library notices the "+
					"allocation that fails: %s, %v", got, err)
			}
			if n := full(t, log); n < 60 || n > 96 {
				t.Errorf("with --max-memory 96MiB the library could get %v MiB; "+
					"want 60 to 96", n)
			}
			// A long message now ends the worker, because Go's runtime does not
			// survive an allocation that fails.
			message := `{"jsonrpc":"2.0","id":1,"method":"tls.Write","params":[1,"` +
				strings.Repeat("AAAA", 4<<20) + `"]}`
			fmt.Fprintln(talkers[0], message) // fails if the worker dies first
			got, err := talkers[0].hear()
			why := cause.FindString(got)
			if why == "" || !strings.Contains(got, `"kind":"lost"`) {
				t.Fatalf("the caller is told %q, %v; want kind lost, and the "+
					"limit of memory as the cause", got, err)
			}
			for _, s := range talkers[1:] {
				if s.worker == talkers[0].worker {
					s.lost(why)
				} else {
					s.talk()
				}
			}
			if e := buried(t, log, talkers[0].worker); e["cause"] != why {
				t.Errorf("the callers are told %s, but the log says %v", why, e)
			}
			// With fault 1009, the library uses memory that it could not get.
			s := newTalker(t, sock, port)
			s.order(1009)
			s.lost("died of SIGSEGV close to its limit of memory (--max-memory " +
				"96MiB) in tls.Read")
			newTalker(t, sock, port).talk()
		})
	}
}

// memoryGroup makes a cgroup with a limit of memory, in bytes. A process that writes its ID to the
// returned file joins the group.
func memoryGroup(t *testing.T, limit int) (procs string) {
	t.Helper()
	name := fmt.Sprintf("tlsd-test-%d-%s", os.Getpid(), filepath.Base(t.Name()))
	var why []string
	for _, v := range []struct{ dir, limit string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, // version 1
		{"/sys/fs/cgroup", "memory.max"},                   // version 2
	} {
		dir := filepath.Join(v.dir, name)
		if _, err := os.Stat(filepath.Join(v.dir, "cgroup.procs")); err != nil {
			why = append(why, err.Error())
			continue
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			why = append(why, err.Error())
			continue
		}
		// Until waits, because workers may end a little later than tlsd.
		t.Cleanup(func() {
			testkit.Until(t, "the control group is empty", func() bool {
				return os.Remove(dir) == nil
			})
		})
		if err := os.WriteFile(filepath.Join(dir, v.limit), fmt.Append(nil, limit),
			0); err != nil {
			why = append(why, err.Error())
			continue
		}
		return filepath.Join(dir, "cgroup.procs")
	}
	t.Skipf("THE KERNEL'S OUT-OF-MEMORY KILLER IS NOT TRIED: it needs a memory cgroup, as "+
		"root: %s", strings.Join(why, "; "))
	return ""
}

// If the kernel is out of memory, it must kill a worker before the supervisor.
func TestKernelThatIsOutOfMemoryPrefersWorkers(t *testing.T) {
	t.Parallel()
	score := func(pid int) (n int) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(string(text), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, confine := range []string{"auto", "off"} {
		sock := filepath.Join(testkit.Dir(t), "s")
		daemon := startWith(t, nil, "", "--socket", sock, "--confine", confine)
		_, _, worker := connect(t, sock)
		if own, its := score(daemon.Process.Pid), score(worker); its != min(own+100, 1000) {
			t.Errorf("--confine=%s: the worker's oom_score_adj is %d; "+
				"want 100 more than the supervisor's %d", confine, its, own)
		}
	}
}

func TestKernelThatIsOutOfMemoryKillsAWorkerAndItsCallersAreTold(t *testing.T) {
	t.Parallel()
	lib := faultyLibrary(t)
	port := echoServer(t)
	for mode, flags := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			group := memoryGroup(t, 160<<20)
			dir := testkit.Dir(t)
			sock, log := filepath.Join(dir, "s"), filepath.Join(dir, "log")
			startWith(t, nil, "echo $$ >"+group+"; exec 2>"+log+";",
				append([]string{"--socket", sock, "--log-format", "json",
					"--libssl", lib}, flags...)...)
			talkers := newTalkers(t, sock, port)
			talkers[0].order(1010)
			const cause = "was killed by the kernel, which was out of memory"
			for _, s := range talkers {
				if s.worker == talkers[0].worker {
					s.lost(cause + " in tls.Read")
				} else {
					s.talk()
				}
			}
			if e := buried(t, log, talkers[0].worker); e["cause"] != cause ||
				e["exit"] != "SIGKILL" {
				t.Errorf("the log has wrong facts about the worker "+
					"that the kernel killed: %v", e)
			}
			newTalker(t, sock, port).talk()
		})
	}
}
