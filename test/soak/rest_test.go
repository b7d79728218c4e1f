package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tlsd/internal/admin"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
	"tlsd/rpc/client"
)

// After the run the daemon must have no more resources than before. During the run its memory is
// measured.

// rest is the state of a daemon without sessions.
type rest struct {
	children, files int
	// the number of descriptors of the worker that has most; 0 if /proc does not let the test
	// count them
	workers int
}

// rest serves one session and waits until the daemon is at rest.
func (a *arena) rest() rest {
	ctx, cancel := context.WithTimeout(a.t.Context(), testkit.Patience)
	defer cancel()
	c, err := client.Dial(ctx, a.d.Socket)
	testkit.Must(a.t, err)
	b, err := c.Backend(ctx)
	testkit.Must(a.t, err)
	if b != "openssl" {
		a.t.Fatalf("tls.Backend is %q; want openssl", b)
	}
	c.Close()
	want := 1 // the spare worker
	if strings.Contains(a.d.CommandLine(), "--workers=3") {
		want = 3
	} else if strings.Contains(a.d.CommandLine(), "--workers=2") {
		want = 2
	}
	defer a.logWorkersOfFailure()
	if a.atRest.files == 0 && !a.restarts {
		// A worker that starts has not opened all its descriptors yet.
		testkit.Until(a.t, fmt.Sprintf("%d workers are ready, and no other exists", want),
			func() bool {
				return maps.Equal(a.workers(), map[string]int{"spare": want})
			})
	}
	var r rest
	testkit.Until(a.t, fmt.Sprintf("the daemon has %d workers, and no more descriptors "+
		"than before", want),
		func() bool {
			kids := testkit.Children(a.d.PID)
			r = rest{children: len(kids),
				files: descriptors(a.d.PID)}
			for _, kid := range kids {
				r.workers = max(r.workers, descriptors(kid.PID))
			}
			return r.children == want &&
				!slices.ContainsFunc(kids,
					func(c testkit.Child) bool { return c.State == "Z" }) &&
				(a.atRest.files == 0 || a.restarts || r.files <= a.atRest.files &&
					r.workers <= a.atRest.workers)
		})
	return r
}

// logWorkersOfFailure does nothing if the test has not failed. Else it logs the daemon's processes,
// and the daemon's own count of its workers.
func (a *arena) logWorkersOfFailure() {
	if !a.t.Failed() {
		return
	}
	for _, kid := range testkit.Children(a.d.PID) {
		a.t.Logf("the daemon has process %d, state %s, with %d descriptors",
			kid.PID, kid.State, descriptors(kid.PID))
	}
	a.t.Logf("the daemon counts %v; before the run it had %+v", a.workers(), a.atRest)
}

// workers returns how many workers the daemon has in each state, for states with at least one.
func (a *arena) workers() map[string]int {
	ctx, cancel := context.WithTimeout(a.t.Context(), testkit.Patience)
	defer cancel()
	var families []admin.Family
	testkit.Must(a.t, admin.Ask(ctx, a.admin, admin.MethodMetrics, nil, &families))
	n := map[string]int{}
	for _, f := range families {
		for _, s := range f.Samples {
			if f.Name == "tlsd_workers" && s.Value > 0 {
				n[s.Labels["state"]] = int(s.Value)
			}
		}
	}
	return n
}

// look checks that nothing is left.
func (a *arena) look() {
	t := a.t
	now := a.rest()
	a.t.Logf("%s\n%s", filepath.Base(t.Name()), a.figures)
	if !a.restarts {
		t.Logf(
			"at rest: %d workers, %d descriptors, at most %d in a worker; before the "+
				"run: %d, %d, %d",
			now.children, now.files, now.workers, a.atRest.children, a.atRest.files,
			a.atRest.workers)
		a.figures.judgeMemory(t)
	}
	testkit.Until(t, "the peer has no open connection", func() bool {
		return a.peer.open.Load() == 0
	})
	for range cap(a.ports) {
		if port := <-a.ports; testd.Listening(t, port) {
			t.Errorf("all sessions have ended, and port %d still has a listener", port)
		}
	}
	if left := list(a.temp); len(left) > 0 {
		t.Errorf("the daemon has left temporary files: %v", left)
	}
	err := a.d.Stop(t)
	if err != nil {
		t.Errorf("at the end of the soak, the daemon ends with %v; want no error", err)
	}
	for _, name := range list(filepath.Dir(a.d.Socket)) {
		if !slices.Contains([]string{"log", "tlsd", "tlsd.sock.lock"}, name) {
			t.Errorf("the daemon has left the file %s beside its socket", name)
		}
	}
	a.peer.stop()
	a.readLog()
	for _, must := range a.figures.missing() {
		t.Errorf("the run had no %s, so it has not tested them", must)
	}
}

// readLog reads the daemon's log. It fails the test if the log has an error that the soak does not
// expect, or more deaths of workers than kills.
func (a *arena) readLog() {
	deaths := 0
	for line := range strings.Lines(a.d.Log(a.t)) {
		var entry struct{ Level, Msg, Cause string }
		// the daemon's last line, when it exits with status 1
		if a.restarts && strings.HasPrefix(line, "tlsd: sessions were still open") {
			continue
		}
		if json.Unmarshal([]byte(line), &entry) != nil {
			a.t.Errorf("the log has a line that is no JSON: %s", line)
			continue
		}
		if entry.Msg == "worker ended unexpectedly" {
			deaths++
		}
		if entry.Level == "error" && entry.Msg != "worker ended unexpectedly" &&
			entry.Msg != "worker hangs" &&
			!(a.shared() && entry.Msg == "no worker for a session") {
			a.t.Errorf("the log has an error that the soak has not caused: %s", line)
		}
	}
	kills := 0
	for _, sig := range []string{"SIGKILL", "SIGSEGV", "SIGABRT", "SIGSTOP"} {
		kills += a.figures.count("kills by " + sig)
	}
	a.t.Logf("%d workers were killed, and %d deaths are in the log", kills, deaths)
	if deaths > kills && !a.restarts {
		a.t.Errorf("%d workers have died, but the soak has killed only %d", deaths, kills)
	}
}

// descriptors is the number of a process's open descriptors; 0 if /proc does not tell.
func descriptors(pid int) int { return len(list(fmt.Sprintf("/proc/%d/fd", pid))) }

func list(dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A sample is what the supervisor has at some time. rss and pss are in KiB.
type sample struct{ rss, pss, files, threads int }

type samples struct {
	mu  sync.Mutex
	all []sample
}

// sample measures the supervisor's memory a hundred times or more.
func (a *arena) sample(ctx context.Context) {
	tick := time.NewTicker(min(*duration/120, 2*time.Second))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		a.daemon.RLock()
		pid := a.d.PID
		a.daemon.RUnlock()
		s := sample{files: descriptors(pid),
			threads: len(list(fmt.Sprintf("/proc/%d/task", pid)))}
		s.rss, _ = field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Rss:")
		s.pss, _ = field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
		if s.rss > 0 {
			a.figures.samples.mu.Lock()
			a.figures.samples.all = append(a.figures.samples.all, s)
			a.figures.samples.mu.Unlock()
		}
	}
}

// field reads a number from a file in /proc.
func field(file, name string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			return strconv.Atoi(f[1])
		}
	}
	return 0, errors.New(name + " is missing")
}
