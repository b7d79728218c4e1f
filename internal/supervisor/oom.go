package supervisor

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The kernel does not say why it has killed a process. But it counts its kills for lack of memory:
// one count for each cgroup, and one for the whole machine. If a worker was killed, the supervisor
// reads the count. If the count has grown recently, the supervisor says that lack of memory is the
// cause.
//
// The supervisor does not learn when the count grew. It takes the time at which it first reads the
// larger count. So the watchdog reads the count at each of its checks. Without the watchdog
// (Config.Watchdog is 0) the supervisor may take an old kill for a recent one.

// After the supervisor has first read a larger count, the growth counts as recent for oomWindow.
const oomWindow = 5 * time.Second

// An oomWatch follows the count of one file.
type oomWatch struct {
	file string

	mu    sync.Mutex // guards all below
	count uint64
	grown time.Time
}

// watchOOM chooses the file with the count. If the daemon's cgroup (cgroups(7)) has such a file,
// watchOOM takes that file, and otherwise the file of the whole machine.
func watchOOM() *oomWatch {
	w := &oomWatch{file: "/proc/vmstat"}
	text, _ := os.ReadFile("/proc/self/cgroup") // without this file there are no cgroups
	for line := range strings.Lines(string(text)) {
		field := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(field) != 3 {
			continue
		}
		file := ""
		switch {
		case field[1] == "":
			file = filepath.Join("/sys/fs/cgroup", field[2], "memory.events")
		case strings.Contains(","+field[1]+",", ",memory,"):
			file = filepath.Join("/sys/fs/cgroup/memory", field[2],
				"memory.oom_control")
		default:
			continue
		}
		if _, ok := oomKills(file); ok {
			w.file = file
		}
	}
	w.count, _ = oomKills(w.file)
	return w
}

// oomKills reads the count from a file. Each line of the file has a key and a value.
func oomKills(file string) (n uint64, ok bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if v, is := strings.CutPrefix(line, "oom_kill "); is {
			n, err = strconv.ParseUint(strings.TrimSpace(v), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// refresh reads the count, and says whether its growth is recent (oomWindow).
func (w *oomWatch) refresh() (recent bool) {
	n, ok := oomKills(w.file)
	w.mu.Lock()
	defer w.mu.Unlock()
	if ok && n > w.count {
		w.count, w.grown = n, time.Now()
	}
	return time.Since(w.grown) < oomWindow
}
