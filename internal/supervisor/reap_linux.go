package supervisor

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hasEnded says whether a child of this process has ended, and how. It does not reap the child.
func hasEnded(pid int) (e exit, ok bool) {
	// info is the siginfo_t of 64-bit machines (sigaction(2)). unix.Siginfo lacks the fields
	// after code.
	var info struct {
		signo, errno, code, _ int32
		pid                   int32
		uid                   uint32
		status                int32
		_                     [100]byte
	}
	var used unix.Rusage
	err := unix.Waitid(unix.P_PID, pid, (*unix.Siginfo)(unsafe.Pointer(&info)),
		unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, &used)
	peak := used.Maxrss << 10
	switch {
	case err == unix.EINTR || err == nil && info.pid == 0:
		return exit{}, false
	case err != nil: // impossible: the process is our child, and only we reap it
		return exit{status: -1}, true
	case info.code == 1: // CLD_EXITED
		return exit{status: int(info.status), peak: peak}, true
	}
	return exit{signal: unix.Signal(info.status), peak: peak}, true
}
