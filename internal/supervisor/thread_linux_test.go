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

// preempt sends the main thread of a process the signal with which Go's runtime preempts
// goroutines.
func preempt(pid int) error { return unix.Tgkill(pid, pid, unix.SIGURG) }

// holdAtItsEnd lets a process that the calling thread traces go on after each signal. It does not
// return. It never lets the process end: the process stays in its stop before the end, or a zombie.
func holdAtItsEnd(pid int) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info,
			unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT|unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		const trapped = 4 // CLD_TRAPPED in signal.h
		if err != nil || info.Code != trapped {
			select {}
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
			select {}
		}
		if status.TrapCause() == unix.PTRACE_EVENT_EXIT {
			select {}
		}
		if err := unix.PtraceCont(pid, int(status.StopSignal())); err != nil {
			select {}
		}
	}
}
