//go:build !linux

package supervisor

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// hasEnded says whether a child of this process has ended, and how. It reaps the child. A second
// call for the child returns status -1.
func hasEnded(pid int) (e exit, ok bool) {
	var status unix.WaitStatus
	var used unix.Rusage
	got, err := unix.Wait4(pid, &status, unix.WNOHANG, &used)
	switch {
	case err == unix.EINTR || err == nil && got == 0:
		return exit{}, false
	case err != nil: // an earlier call has reaped the child
		return exit{status: -1}, true
	}
	peak := used.Maxrss // in bytes on darwin, else in KiB
	if runtime.GOOS != "darwin" {
		peak <<= 10
	}
	if status.Signaled() {
		return exit{signal: status.Signal(), peak: peak}, true
	}
	return exit{status: status.ExitStatus(), peak: peak}, true
}
