package soak

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"tlsd/rpc/client"
)

// figures counts what has happened in the run, by name.
type figures struct {
	mu     sync.Mutex
	counts map[string]int
	errors map[string]int // of scenes that were excused, by kind

	samples samples
}

func newFigures() *figures { return &figures{counts: map[string]int{}, errors: map[string]int{}} }

func (f *figures) add(what string, n int) {
	f.mu.Lock()
	f.counts[what] += n
	f.mu.Unlock()
}

func (f *figures) error(err error) {
	kind := string(kindOf(err))
	switch {
	case kind == "":
		kind = "of the peer or the socket"
	case kind == string(client.KindLost) &&
		strings.Contains(err.Error(), "the worker of this session "):
		kind += ", and told why"
	}
	f.mu.Lock()
	f.errors[kind]++
	f.mu.Unlock()
}

func (f *figures) count(what string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[what]
}

// missing returns what must happen in a run (musts), and has not happened.
func (f *figures) missing() []string {
	return slices.DeleteFunc(slices.Clone(musts), func(must string) bool {
		return f.count(must) > 0
	})
}

// String lists all figures.
func (f *figures) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.counts)) {
		fmt.Fprintf(&b, "%-28s %12d\n", name, f.counts[name])
	}
	for _, kind := range slices.Sorted(maps.Keys(f.errors)) {
		fmt.Fprintf(&b, "%-28s %12d\n", "errors: "+kind, f.errors[kind])
	}
	return b.String()
}

// judgeMemory compares the supervisor's memory in the first third and in the last third of the run.
// The first tenth of the run is left out, because a new daemon always grows.
func (f *figures) judgeMemory(t *testing.T) {
	t.Helper()
	all := f.samples.all
	if len(all) < 30 {
		t.Errorf("the memory was measured only %d times; want at least 30", len(all))
		return
	}
	var at []string
	for _, percent := range []int{25, 50, 75, 100} {
		s := all[len(all)*percent/100-1]
		at = append(at, fmt.Sprintf(
			"%d %%: RSS %d KiB, PSS %d KiB, %d descriptors, %d threads", percent, s.rss,
			s.pss, s.files, s.threads))
	}
	t.Logf("the supervisor at %s", strings.Join(at, "; "))
	warm := all[len(all)/10:]
	median := func(part []sample) int {
		values := make([]int, len(part))
		for i, s := range part {
			values[i] = s.rss
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	first, last := median(warm[:len(warm)/3]), median(warm[len(warm)*2/3:])
	t.Logf("the median of the supervisor's RSS is %d KiB in the first third, %d KiB in the "+
		"last", first, last)
	if last > first+first/10+2048 {
		t.Errorf("the supervisor's memory grows from %d to %d KiB; 10 %% and 2 MiB are "+
			"allowed", first, last)
	}
}
