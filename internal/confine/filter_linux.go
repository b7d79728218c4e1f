package confine

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The filter allows the calls in the lists of allowed.go. Every other call gets EPERM. A call that
// is newer than the lists gets ENOSYS, as from a kernel without the call, because libraries can go
// on after ENOSYS.
//
// The program is a row of blocks. Each block decides on one call or passes on to the next block. So
// each block begins with the number of the call in the register. go-seccomp-bpf knows the numbers.
// Its own programs break this rule behind a condition that fails, so they are not used.

// The verdicts on a call.
var (
	permit = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	refuse = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	lacks  = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}
	noTTY  = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOTTY)}
)

// Where struct seccomp_data has the number of the call, the architecture, and the arguments
// (seccomp(2)).
const (
	numberOffset   = 0
	archOffset     = 4
	argumentOffset = 16
)

// program makes the filter's program for the process pid.
func program(pid int) ([]bpf.Instruction, error) {
	info, err := arch.GetInfo(runtime.GOARCH)
	if err != nil {
		return nil, fmt.Errorf("there is no seccomp filter for %s: %w", runtime.GOARCH, err)
	}
	return programFor(info, uint32(pid)), nil
}

func programFor(info *arch.Info, pid uint32) []bpf.Instruction {
	newest := slices.Max(slices.Collect(maps.Values(info.SyscallNames)))
	list := make([]bpf.Instruction, 0, 2*len(allowed)+200)
	list = append(list,
		// The calls of another architecture have other numbers, so all of them are refused.
		bpf.LoadAbsolute{Off: archOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(info.ID), SkipTrue: 1},
		refuse,
		bpf.LoadAbsolute{Off: numberOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(newest), SkipFalse: 1},
		lacks,
	)
	add := func(name string, block ...bpf.Instruction) {
		if number, ok := info.SyscallNames[name]; ok {
			list = append(list, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(number),
				SkipFalse: uint8(len(block))})
			list = append(list, block...)
		}
	}
	for _, name := range allowed {
		add(name, permit)
	}
	// Of netlink's protocols only the one for interfaces is allowed. The others are ways to
	// other processes.
	add("socket", slices.Concat([]bpf.Instruction{low(0),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_NETLINK, SkipFalse: 3},
		low(2), bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.NETLINK_ROUTE, SkipTrue: 1},
		refuse}, oneOf(0, refuse, families...))...)
	add("kill", oneOf(0, refuse, pid)...)
	add("tgkill", oneOf(0, refuse, pid)...)
	add("prlimit64", oneOf(0, refuse, 0, pid)...)
	add("prctl", oneOf(0, refuse, prctls...)...)
	add("fcntl", oneOf(1, refuse, fcntls...)...)
	add("ioctl", oneOf(1, noTTY, ioctls...)...)
	// A thread is allowed. A process is refused, because it would outlive the worker. The
	// filter cannot see the arguments of clone3(2), so clone3 is refused, and C libraries take
	// clone(2) instead.
	add("clone", low(0), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.CLONE_THREAD,
		SkipFalse: 1}, permit, refuse)
	add("clone3", lacks)
	// Shared memory without a file counts towards no limit.
	add("mmap", low(3), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.MAP_SHARED, SkipFalse: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.MAP_ANONYMOUS, SkipFalse: 1},
		refuse, permit)
	return append(list, refuse)
}

// oneOf is the block of a call that is allowed if an argument has one of the values. All 64 bits
// are compared, because the kernel drops the upper ones for some arguments.
func oneOf(argument uint32, otherwise bpf.Instruction, values ...uint32) []bpf.Instruction {
	block := []bpf.Instruction{high(argument),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1}, otherwise, low(argument)}
	for _, v := range values {
		block = append(block, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipFalse: 1}, permit)
	}
	return append(block, otherwise)
}

// low and high load the halves of an argument, on a little-endian machine.
func low(argument uint32) bpf.Instruction {
	return bpf.LoadAbsolute{Off: argumentOffset + 8*argument, Size: 4}
}

func high(argument uint32) bpf.Instruction {
	return bpf.LoadAbsolute{Off: argumentOffset + 8*argument + 4, Size: 4}
}

// install installs the program in all threads of the process.
func install(program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// With TSYNC the other threads get no_new_privs too.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl PR_SET_NO_NEW_PRIVS: %w", err)
	}
	fprog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
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
