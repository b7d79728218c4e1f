package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"tlsd/internal/testkit"
)

// Each input in the folder corpus runs once through its libFuzzer target, and finds no failure.
// (The kept inputs of the Go targets are run by the tests of their packages.)
func TestTheCorpusOfThePluginIsReplayed(t *testing.T) {
	t.Parallel()
	testkit.Tool(t, "clang")
	for _, name := range libFuzzerTargets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
			defer cancel()
			program, err := buildLibFuzzer(ctx, "../../..", t.TempDir(), name)
			if err != nil {
				t.Fatal(err)
			}
			corpus := filepath.Join("corpus", name)
			inputs, err := os.ReadDir(corpus)
			if err != nil || len(inputs) == 0 {
				t.Fatalf("no inputs in %s: %v", corpus, err)
			}
			// -runs=0: only the kept inputs. libFuzzer runs the empty input as well.
			out, err := exec.CommandContext(ctx, program, "-runs=0",
				"-artifact_prefix="+t.TempDir()+"/", corpus).CombinedOutput()
			ran := regexp.MustCompile(`Done (\d+) runs`).FindSubmatch(out)
			if err != nil || ran == nil {
				t.Fatalf("libFuzzer: %v; want no error, and a line with "+
					"\"Done N runs\" in\n%s", err, out)
			}
			if n, _ := strconv.Atoi(string(ran[1])); n < len(inputs) {
				t.Errorf("only %d of %d inputs were run\n%s", n, len(inputs), out)
			}
		})
	}
}
