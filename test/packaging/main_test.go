// Package packaging tests the results of make build and make install, the plugin's binary
// interface, and, with build tags, the packages and the systemd units.
//
//	go test ./test/packaging                    the quick tests
//	go test -tags systemd ./test/packaging      the units under a real systemd; needs root
//	go test -tags packages ./test/packaging     builds in two folders, and the .deb and the .rpm
//	                                            in root file systems of Debian; needs root
//	go test -tags containers ./test/packaging   the image, and containers of a daemon and of
//	                                            scripts, by podman; needs root
package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const top = "../.." // of the source tree

// bin is the folder of the programs that make build has made for these tests.
var bin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if bin = os.Getenv("TLSD_TEST_BIN"); bin != "" { // make has built the programs
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "tlsd-packaging-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		bin = filepath.Join(dir, "bin")
		if out, err := makeIn(top, "build", "BIN="+bin).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "make build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// makeIn returns a command that runs make in the folder dir. It inherits no variables of the make
// that may have started this test.
func makeIn(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("make", append([]string{"--no-print-directory"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
	return cmd
}

// succeed runs a command that must end with status 0, and returns its output.
func succeed(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s fails: %v\n%s", cmd, err, out)
	}
	return string(out)
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
