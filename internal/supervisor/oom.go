package supervisor

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The kernel does not say why it has killed a process, but it counts those that it has killed
// because memory was short, in a cgroup or else on the machine. A worker that was killed is taken
// for one of them if the count has grown a short while ago. It is looked at whenever a worker is,
// so that an old kill is not taken for a new one.

// oomWindow is how long a killed process may take to be gone.
const oomWindow = 5 * time.Second

// An oomWatch follows the count of one file.
type oomWatch struct {
	file string

	mu    sync.Mutex // guards all below
	count uint64
	grown time.Time
}

// watchOOM finds the count that workers are part of, that of the daemon's cgroup (cgroups(7)) if it
// can be.
func watchOOM() *oomWatch {
	w := &oomWatch{file: "/proc/vmstat"}
	text, _ := os.ReadFile("/proc/self/cgroup") // without it there are no cgroups
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
			file = filepath.Join("/sys/fs/cgroup/memory", field[2], "memory.oom_control")
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

// oomKills reads the count, from files of lines of a key and a value.
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

// look brings the count up to date, and says whether it has grown just now.
func (w *oomWatch) look() (recent bool) {
	n, ok := oomKills(w.file)
	w.mu.Lock()
	defer w.mu.Unlock()
	if ok && n > w.count {
		w.count, w.grown = n, time.Now()
	}
	return time.Since(w.grown) < oomWindow
}
