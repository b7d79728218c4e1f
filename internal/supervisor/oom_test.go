package supervisor

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"tlsd/internal/testkit"
)

func TestKillIsRecentIfTheCountHasJustGrown(t *testing.T) {
	t.Parallel()
	w := &oomWatch{file: filepath.Join(t.TempDir(), "memory.events")}
	count := func(n string) {
		testkit.Must(t, os.WriteFile(w.file,
			[]byte("low 0\noom 9\noom_kill "+n+"\noom_group_kill 7\n"), 0o600))
	}
	if w.refresh() {
		t.Error("without a file, a kill is recent")
	}
	count("0")
	if w.refresh() {
		t.Error("with a count of 0, a kill is recent")
	}
	count("3")
	for range 2 {
		if !w.refresh() {
			t.Error("the count has grown, and no kill is recent")
		}
	}
	w.grown = w.grown.Add(-oomWindow)
	if w.refresh() {
		t.Error("the count had grown long ago, and a kill is recent")
	}
	count("nonsense")
	if w.refresh() || w.count != 3 {
		t.Error("nonsense counts")
	}
}

func TestTheMachineCountsKills(t *testing.T) {
	t.Parallel()
	w := watchOOM()
	if _, ok := oomKills(w.file); !ok {
		t.Errorf("there is no count in %s", w.file)
	}
	if time.Since(w.grown) < oomWindow {
		t.Error("an old count is a new kill")
	}
}

func TestSizeText(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{1 << 30: "1GiB", 3 << 29: "1536MiB",
		96 << 20: "96MiB", 1 << 10: "1KiB", 1000: "1000"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d: %s; want %s", n, got, want)
		}
	}
}
