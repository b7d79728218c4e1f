package supervisor

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"tlsd/internal/testkit"
)

// A killed worker counts as killed for lack of memory only if the kernel's count of such kills has
// grown within oomWindow.
func TestAKillCountsAsLackOfMemoryOnlyIfTheCountHasJustGrown(t *testing.T) {
	t.Parallel()
	w := &oomWatch{file: filepath.Join(t.TempDir(), "memory.events")}
	count := func(n string) {
		testkit.Must(t, os.WriteFile(w.file,
			[]byte("low 0\noom 9\noom_kill "+n+"\noom_group_kill 7\n"), 0o600))
	}
	if w.refresh() {
		t.Error("there is no file, and refresh reports a recent kill")
	}
	count("0")
	if w.refresh() {
		t.Error("the count is 0, and refresh reports a recent kill")
	}
	count("3")
	for range 2 {
		if !w.refresh() {
			t.Error("the count has just grown, and refresh reports no recent kill")
		}
	}
	w.grown = w.grown.Add(-oomWindow)
	if w.refresh() {
		t.Error("the count has grown long ago, and refresh reports a recent kill")
	}
	count("nonsense")
	if w.refresh() || w.count != 3 {
		t.Error("the file has no number, and the count has changed, or refresh reports a " +
			"recent kill")
	}
}

// The kernel of the machine that runs the tests has a file with a count of kills. Kills before the
// call of watchOOM do not count as recent.
func TestTheMachineCountsKills(t *testing.T) {
	t.Parallel()
	w := watchOOM()
	if _, ok := oomKills(w.file); !ok {
		t.Errorf("%s has no count of kills", w.file)
	}
	if time.Since(w.grown) < oomWindow {
		t.Error("a kill before the start counts as recent")
	}
}

// A number of bytes is written with the largest unit that leaves no fraction.
func TestSizeText(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{1 << 30: "1GiB", 3 << 29: "1536MiB",
		96 << 20: "96MiB", 1 << 10: "1KiB", 1000: "1000"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d bytes are written as %s; want %s", n, got, want)
		}
	}
}
