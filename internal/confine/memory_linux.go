package confine

import (
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The limit of a worker's memory is RLIMIT_DATA (getrlimit(2)). It counts the private writable
// memory of the process, Go's and C's. Two other limits are not used. RLIMIT_AS would count the
// gigabytes of addresses that Go reserves and does not use. A cgroup for each worker needs rights
// that not every daemon has.

// LimitMemory limits the memory of this process. The parameter max is the number of bytes that the
// process may add to its present memory. At the limit malloc(3) fails, and an allocation of Go ends
// the process. When Go's own memory reaches three quarters of max, Go's garbage collector works
// harder.
func LimitMemory(max int64) error {
	has, err := dataBytes()
	if err != nil {
		return err
	}
	if has > math.MaxInt64-max {
		return fmt.Errorf("limit memory to %d bytes: too many", max)
	}
	limit := uint64(has + max)
	if err := unix.Setrlimit(unix.RLIMIT_DATA,
		&unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return fmt.Errorf("setrlimit RLIMIT_DATA: %w", err)
	}
	if most := max / 4 * 3; most < debug.SetMemoryLimit(-1) { // GOMEMLIMIT may be lower
		debug.SetMemoryLimit(most)
	}
	return nil
}

// dataBytes is the memory that RLIMIT_DATA counts, in bytes.
func dataBytes() (int64, error) {
	const file, key = "/proc/self/status", "VmData:"
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			n, err := strconv.ParseInt(
				strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest),
					"kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", file, err)
			}
			return n << 10, nil
		}
	}
	return 0, fmt.Errorf("%s has no %q", file, key)
}

// When the machine or the cgroup is out of memory, the kernel kills the process with the highest
// score. The score is the process's share of all memory, in thousandths. A worker adds oomBias to
// its own score. So a worker dies before the supervisor, which has little memory. But a program
// that takes all memory has a still higher score, and dies before a worker.
const oomBias = 100

// dieFirst adds oomBias to the score of this process and of the programs that it executes
// (proc_pid_oom_score_adj(5)).
func dieFirst() error {
	const file = "/proc/self/oom_score_adj"
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(strconv.Itoa(min(score+oomBias, 1000)))
	return err
}
