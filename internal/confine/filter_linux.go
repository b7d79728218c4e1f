package confine

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The seccomp filter. Package filter makes its program from lists of system calls. The finished
// program is in filter_linux_ARCHITECTURE.go: filterWords has the instructions, and filterPIDs has
// the indexes of those that compare with the worker's own pid.

// program is the filter's program for the process with the number pid.
func program(pid int) ([]unix.SockFilter, error) {
	if len(filterWords) == 0 {
		return nil, fmt.Errorf("there is no seccomp filter for %s", runtime.GOARCH)
	}
	list := make([]unix.SockFilter, len(filterWords))
	for i, w := range filterWords {
		list[i] = unix.SockFilter{Code: uint16(w), Jt: uint8(w >> 16), Jf: uint8(w >> 24),
			K: uint32(w >> 32)}
	}
	for _, i := range filterPIDs {
		list[i].K = uint32(pid)
	}
	return list, nil
}

// install installs the program in all threads of the process.
func install(program []unix.SockFilter) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// seccomp(2) needs no_new_privs. This call sets no_new_privs for this thread. The flag
	// TSYNC below sets no_new_privs for the other threads.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl PR_SET_NO_NEW_PRIVS: %w", err)
	}
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	switch {
	case errno != 0:
		return fmt.Errorf("seccomp: %w", errno)
	case r != 0:
		return fmt.Errorf("thread %d cannot have the seccomp filter", r)
	}
	return nil
}
