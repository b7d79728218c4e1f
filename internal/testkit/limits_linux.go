package testkit

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// OpenFiles lists the descriptors of a process, in order. It skips the test if this user may not
// look into the process.
func OpenFiles(tb testing.TB, pid int) []int {
	tb.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if errors.Is(err, os.ErrPermission) {
		tb.Skip("needs root, to look into a worker")
	}
	Must(tb, err)
	var fds []int
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		Must(tb, err)
		fds = append(fds, fd)
	}
	slices.Sort(fds)
	return fds
}

// LeaveDescriptors lowers a process's limit of open files, so that the process can open only n
// more. The function restore sets the old limit again; it also runs when the test ends.
func LeaveDescriptors(tb testing.TB, pid, n int) (restore func()) {
	tb.Helper()
	limit, free := 0, 0
	for open := OpenFiles(tb, pid); free < n; limit++ {
		if !slices.Contains(open, limit) {
			free++
		}
	}
	return Limit(tb, pid, unix.RLIMIT_NOFILE, uint64(limit))
}

// Limit sets a process's soft limit for one resource (getrlimit(2)). The function restore sets the
// old limit again; it also runs when the test ends.
func Limit(tb testing.TB, pid, resource int, limit uint64) (restore func()) {
	tb.Helper()
	var old unix.Rlimit
	Must(tb, unix.Prlimit(pid, resource, nil, &old))
	Must(tb, unix.Prlimit(pid, resource, &unix.Rlimit{Cur: limit, Max: old.Max}, nil))
	// Prlimit fails if the process has ended.
	restore = func() { _ = unix.Prlimit(pid, resource, &old, nil) }
	tb.Cleanup(restore)
	return restore
}
