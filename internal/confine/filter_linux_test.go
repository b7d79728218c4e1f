package confine

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"tlsd/internal/confine/filter"
	"tlsd/internal/testpages"
)

// assembled returns the program that package filter makes from its lists of system calls.
func assembled(t *testing.T, goarch string, pid uint32) []bpf.RawInstruction {
	t.Helper()
	list, err := filter.Program(goarch, pid)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := bpf.Assemble(list)
	// The kernel accepts at most 4096 instructions (BPF_MAXINSNS).
	if err != nil || len(raw) < 100 || len(raw) > 4096 {
		t.Fatalf("%s: the program has %d instructions, %v; want 100 to 4096", goarch,
			len(raw), err)
	}
	return raw
}

// For each architecture, a generated file has the program that package filter makes from its lists.
// The lists take the values of arguments from the machine that runs the test. So a run on arm64
// also shows that these values are the same on both architectures.
func TestGeneratedProgramIsThatOfTheLists(t *testing.T) {
	t.Parallel()
	for _, goarch := range []string{"amd64", "arm64"} {
		var words, pids strings.Builder
		other := assembled(t, goarch, 2)
		for i, in := range assembled(t, goarch, 1) {
			if in != other[i] {
				fmt.Fprintf(&pids, "%d, ", i)
				in.K = 0
			}
			fmt.Fprintf(&words, "%#016x,", uint64(in.K)<<32|uint64(in.Jf)<<24|
				uint64(in.Jt)<<16|uint64(in.Op))
			words.WriteString([]string{" ", " ", " ", "\n\t"}[i%4])
		}
		testpages.Hold(t, "filter_linux_"+goarch+".go", fmt.Sprintf(
			"\nvar filterWords = []uint64{\n\t%s\n}\n\nvar filterPIDs = []int{%s}\n\n",
			strings.TrimSpace(words.String()), strings.TrimSuffix(pids.String(), ", ")))
	}
}

// A worker installs the program that package filter makes, with the worker's own process ID.
func TestInstalledProgramIsThatOfTheLists(t *testing.T) {
	t.Parallel()
	for _, pid := range []int{1, 4711, 1 << 22} {
		list, err := program(pid)
		if err != nil {
			t.Fatal(err)
		}
		var want []unix.SockFilter
		for _, in := range assembled(t, runtime.GOARCH, uint32(pid)) {
			want = append(want, unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf,
				K: in.K})
		}
		if !slices.Equal(list, want) {
			t.Errorf("process %d: the program differs from that of package filter: "+
				"run make pages", pid)
		}
	}
}
