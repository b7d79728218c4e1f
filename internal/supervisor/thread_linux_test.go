package supervisor

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// threadAs changes the user and the group of the calling thread, and of no other thread.
func threadAs(uid, gid uint32) error {
	unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid))
	_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
	if errno != 0 {
		return errno
	}
	return nil
}

// die sends the signal to its own thread, which runs Go code. Another thread could be in the race
// detector, where the runtime cannot write a dump.
func die(sig unix.Signal) {
	runtime.LockOSThread()
	unix.Tgkill(os.Getpid(), unix.Gettid(), sig)
}

// slack is the timer slack of the calling thread, in ns.
func slack() string {
	n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(n)
}

// seize makes the calling thread trace a process. On most kernels even a killed process then stops
// before its end, and keeps its resources.
func seize(pid int) error {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0,
		unix.PTRACE_O_TRACEEXIT, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
