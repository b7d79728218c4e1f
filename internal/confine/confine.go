// Package confine takes from a worker process what it never needs, so that code which
// takes it over through the TLS library gains little. It has two parts:
//
//   - [Restart], at the very start: Landlock (landlock(7)) and no_new_privs, which
//     hold for a thread and what it executes. A Go program cannot do that to all of its threads
//     on most kernels, so it does it to one and executes itself.
//   - [Finish], when the library is loaded: a seccomp filter, for all threads at once.
//
// What the kernel does not have is left out, and reported as the reason instead
// of "on". Nothing here can be undone.
package confine

import (
	"debug/elf"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// EnvName is the environment variable by which the supervisor asks for the
// confinement of a worker ([EnvAsk]), and by which Restart tells the program that it executes what it has reached.
const (
	EnvName = "TLSD_WORKER_CONFINE"
	EnvAsk  = "ask"
)

// On is the report of a confinement that holds.
const On = "on"

// Restart confines the calling thread and executes the program again, if the
// environment asks for that. Otherwise it returns the report of the Restart that came before, or "" if no
// confinement is wanted. It is called before anything else.
func Restart() (landlock string) {
	state := os.Getenv(EnvName)
	os.Unsetenv(EnvName)
	if state != EnvAsk {
		return state
	}
	runtime.LockOSThread()
	report := On
	if err := restrict(); err != nil {
		report = err.Error()
	}
	err := syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), EnvName+"="+report))
	return fmt.Sprintf("%s; execute tlsd again: %v", report, err)
}

// restrict takes from the calling thread, and what it executes: writing to, making and removing files;
// executing other files than this program; signals to, and abstract sockets of, processes outside.
func restrict() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_NO_NEW_PRIVS", err)
	}
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return fmt.Errorf("the kernel has no Landlock: %w", errno)
	}
	const read = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	attr := unix.LandlockRulesetAttr{Handled_access_fs: 1<<13 - 1} // version 1: from EXECUTE to MAKE_SYM
	size := unsafe.Sizeof(attr.Handled_access_fs)
	if abi >= 2 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
		size = unsafe.Offsetof(attr.Quiet_access_fs) // the three members of that version
	}
	rules, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return os.NewSyscallError("landlock_create_ruleset", errno)
	}
	defer unix.Close(int(rules))
	if err := allow(int(rules), "/", read); err != nil {
		return err
	}
	const self = "/proc/self/exe"
	if err := allow(int(rules), self, unix.LANDLOCK_ACCESS_FS_EXECUTE); err != nil {
		return err
	}
	// The kernel executes the dynamic linker, too.
	program, err := elf.Open(self)
	if err != nil {
		return err
	}
	defer program.Close()
	for _, p := range program.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name := make([]byte, p.Filesz)
		if _, err := p.ReadAt(name, 0); err != nil {
			return err
		}
		if err := allow(int(rules), strings.TrimRight(string(name), "\x00"), unix.LANDLOCK_ACCESS_FS_EXECUTE); err != nil {
			return err
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, rules, 0, 0); errno != 0 {
		return os.NewSyscallError("landlock_restrict_self", errno)
	}
	return nil
}

// allow adds a rule for a file, or for all below a folder.
func allow(rules int, path string, access uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	attr := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(fd)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("landlock_add_rule for %s: %w", path, errno)
	}
	return nil
}

// Finish puts the seccomp filter on all threads of the process.
func Finish() (seccomp string) {
	if err := install(program(uint32(os.Getpid()))); err != nil {
		return err.Error()
	}
	return On
}

func install(prog []unix.SockFilter) error {
	if len(prog) == 0 {
		return fmt.Errorf("there is no seccomp filter for %s", runtime.GOARCH)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// With TSYNC the other threads get no_new_privs, too.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_NO_NEW_PRIVS", err)
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	switch {
	case errno != 0:
		return os.NewSyscallError("seccomp", errno)
	case r != 0:
		return fmt.Errorf("thread %d cannot have the seccomp filter", r)
	}
	return nil
}

// Held tells whether no_new_privs holds.
func Held() string {
	v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	switch {
	case err != nil:
		return err.Error()
	case v != 1:
		return "not set"
	}
	return On
}
