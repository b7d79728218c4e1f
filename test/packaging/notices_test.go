package packaging

import (
	"debug/buildinfo"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// packaging/notices prints the licence of each module that is linked into a program.
func TestNoticesHaveEveryLinkedModule(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("go", "run", "./packaging/notices")
	cmd.Dir = top
	notices := succeed(t, cmd)
	modules := 0
	for _, name := range []string{"tlsd", "tlsshim"} {
		info, err := buildinfo.ReadFile(filepath.Join(bin, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range info.Deps {
			modules++
			_, after, ok := strings.Cut(notices, "\n"+m.Path+" "+m.Version+"\n\n")
			if text, _, _ := strings.Cut(after,
				"\n"+strings.Repeat("-", 78)+"\n"); !ok || len(text) < 500 {
				t.Errorf("%s: the notices lack the licence of %s %s", name,
					m.Path, m.Version)
			}
		}
	}
	if modules == 0 {
		t.Error("the programs have no modules, so this test checks nothing")
	}
}
