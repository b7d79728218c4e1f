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

// Every kept input runs once through the plugin's reader. (go test itself runs those of the Go
// targets.)
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
			// -runs=0: only the kept inputs. The empty input comes first.
			out, err := exec.CommandContext(ctx, program, "-runs=0",
				"-artifact_prefix="+t.TempDir()+"/", corpus).CombinedOutput()
			ran := regexp.MustCompile(`Done (\d+) runs`).FindSubmatch(out)
			if err != nil || ran == nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if n, _ := strconv.Atoi(string(ran[1])); n < len(inputs) {
				t.Errorf("%d of %d inputs were run\n%s", n, len(inputs), out)
			}
		})
	}
}
