package rules

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const walks = "docs/design/walks.md"

var (
	steps     = regexp.MustCompile(`(?m)^(?:\d+\. |\n)`)
	namedFile = "`([a-z][\\w./-]*/[\\w.-]+\\.[a-z]+)`"
	namedCall = "`(\\w+)\\(\\)`"
)

// Each file that a walk names is there. Each function that a step names is defined in a file of the
// same step, in Go or in C: a call of the function is not enough.
func TestWalksNameFilesAndFunctionsThatExist(t *testing.T) {
	t.Parallel()
	files, calls := 0, 0
	for _, step := range steps.Split(string(read(t, walks)), -1) {
		var sources strings.Builder
		for _, file := range matches([]byte(step), namedFile) {
			files++
			source, err := os.ReadFile(filepath.Join(top, file))
			if err != nil {
				t.Errorf("%s: %v", walks, err)
			}
			sources.Write(source)
		}
		for _, name := range matches([]byte(step), namedCall) {
			calls++
			definition := regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|\w[\w *]*\W)` +
				name + `\([^;]*$`)
			if !definition.MatchString(sources.String()) {
				t.Errorf("%s: the files of this step do not define %s():\n%s",
					walks, name, step)
			}
		}
	}
	if files < 20 || calls < 20 {
		t.Errorf("found only %d files and %d functions; this test needs 20 of each", files,
			calls)
	}
}
