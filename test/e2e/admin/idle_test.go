package admin

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"tlsd/internal/testd"
)

// mostIdle is the limit for the anonymous memory of an idle worker, in KiB. With OpenSSL 3.0 and
// two processors, a worker has 3.0 MiB in a position-independent build of tlsd, and 2.2 MiB in any
// other build.
const mostIdle = 3500

// An idle worker has at most mostIdle KiB of memory of its own. With -v the test prints the figure
// for the table in docs/operations.md.
func TestAnIdleWorkerNeedsLittleMemory(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may look at the memory of workers")
	}
	t.Setenv("GOMAXPROCS", "2") // each processor that runs the worker adds to its heap
	d := testd.Start(t)
	c := d.Dial(t)
	if _, err := c.Backend(t.Context()); err != nil {
		t.Fatal(err)
	}
	workers := slices.DeleteFunc(d.Processes(), func(pid int) bool { return pid == d.PID })
	if len(workers) == 0 {
		t.Fatal("there is no worker")
	}
	for _, pid := range workers {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(text), "\nAnonymous:")
		var kib int
		_, err = fmt.Sscan(after, &kib)
		if err != nil || kib == 0 || kib > mostIdle {
			t.Errorf("the idle worker %d has %d KiB of anonymous memory (%v); "+
				"want 1 to %d", pid, kib, err, mostIdle)
		}
		t.Logf("worker %d has %d KiB of memory of its own", pid, kib)
	}
}
