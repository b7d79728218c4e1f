package supervisor

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"tlsd/internal/handoff"
	"tlsd/internal/testkit"
)

// fakeLibrary makes a file that workers can report as their libssl. The function replace puts a new
// file at its path, as an update of the library does.
func fakeLibrary(t *testing.T) (path string, replace func()) {
	path = filepath.Join(t.TempDir(), "libssl.so")
	write := func(name string) { testkit.Must(t, os.WriteFile(name, []byte(name), 0o644)) }
	write(path)
	return path, func() { write(path + ".new"); testkit.Must(t, os.Rename(path+".new", path)) }
}

// overlap says whether a and b have a common element.
func overlap(a, b []int) bool {
	return slices.ContainsFunc(a, func(n int) bool { return slices.Contains(b, n) })
}

// After an update of the library, a new session gets a worker that has loaded the new file, and the
// spares are replaced. A session that is open keeps its worker.
func TestASessionGetsTheLibraryThatIsOnTheDisk(t *testing.T) {
	t.Parallel()
	path, replace := fakeLibrary(t)
	d := startDaemon(t, workerPlay{Report: handoff.Ready{Backend: "openssl", Path: path}},
		func(c *Config) { c.Warm = 2 })
	var before []int
	d.until("spares are ready", func() bool { before = d.poolPIDs(); return len(before) == 2 })
	old := d.dial()
	if pid := old.pid(); !slices.Contains(before, pid) {
		t.Errorf("worker %d is none of the spares %v: the test shows nothing", pid, before)
	}
	d.until("spares are ready", func() bool { before = d.poolPIDs(); return len(before) == 2 })
	replace()
	if pid := d.dial().pid(); slices.Contains(before, pid) {
		t.Errorf("worker %d, which has the old library, has got a session", pid)
	}
	d.until("all spares are new", func() bool {
		now := d.poolPIDs()
		return len(now) == 2 && !overlap(now, before)
	})
	old.pid() // fails if this session has lost its worker
}

// Reload reads the settings and replaces the idle workers. An open session keeps its worker. The
// worker ends when its last session ends.
func TestReloadReplacesIdleWorkers(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{false, true} {
		d := startDaemon(t, workerPlay{}, func(c *Config) { c.Warm, c.Shared = 2, shared })
		var before []int
		d.until("workers are ready",
			func() bool { before = d.poolPIDs(); return len(before) == 2 })
		old := d.dial()
		oldPID := old.pid()
		d.until("workers are ready",
			func() bool { before = d.poolPIDs(); return len(before) == 2 })
		read := false
		d.Reload(func() { read = true })
		if !read {
			t.Error("Reload has not read the settings")
		}
		d.until("all idle workers are new", func() bool {
			now := d.poolPIDs()
			return len(now) == 2 && !overlap(now, before)
		})
		if pid := old.pid(); pid != oldPID {
			t.Errorf("the session has changed from worker %d to %d", oldPID, pid)
		}
		old.say("bye")
		old.cut()
		d.until("the old worker is gone with its last session", func() bool {
			_, err := os.Stat(filepath.Join("/proc", strconv.Itoa(oldPID)))
			return err != nil
		})
		if n := d.logs.FilterMessage("worker ended unexpectedly").Len(); n != 0 {
			t.Errorf("%d workers ended unexpectedly", n)
		}
	}
}

// A worker reports the path of its library. The supervisor does not open the path that a worker of
// another user reports: in a file system that the user controls, the open could block for ever.
func TestTheFileThatAnotherUsersWorkerNamesIsNotOpened(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to call as another user")
	}
	t.Parallel()
	const user = 63333
	path, _ := fakeLibrary(t)
	d := startDaemon(t, workerPlay{Report: handoff.Ready{Backend: "openssl", Path: path}},
		func(c *Config) {
			c.Policy, c.WarmOthers = Policy{UIDs: []uint32{user}}, 1
		})
	testkit.Must(t, os.Chmod(filepath.Dir(d.path), 0o755))
	testkit.Must(t, os.Chmod(d.path, 0o666))
	d.dialFrom(user)
	d.dial().pid()
	d.logged("session started", 2)
	d.mu.Lock()
	defer d.mu.Unlock()
	looked := map[bool]int{}
	for w := range d.workers {
		if w.isReady() && w.load > 0 {
			looked[w.otherUser]++
			if got := w.libraryFile != nil; got == w.otherUser {
				t.Errorf("the supervisor has opened the library of a worker: %v; "+
					"want %v (a worker of another user: %v)", got, !got,
					w.otherUser)
			}
		}
	}
	if looked[true] != 1 || looked[false] != 1 {
		t.Errorf("workers of another user: %d, of the own user: %d; want one each, "+
			"or the test shows nothing", looked[true], looked[false])
	}
}

// A caller waits for a worker, and renew replaces this worker. If the caller then hangs up, the
// worker has nothing left to do, and ends.
func TestAReplacedWorkerEndsWhenItsLastCallerHasLeft(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, workerPlay{}, nil)
	d.until("a worker is ready", func() bool { return len(d.poolPIDs()) == 1 })
	d.mu.Lock()
	w := d.pool[0]
	w.load++ // what acquire does for a caller
	d.mu.Unlock()
	d.renew()
	d.release(w)
	testkit.Receive(t, w.gone, "the end of the replaced worker")
}
