// Package filter makes the programs of the workers' seccomp filter, one for each architecture, from
// names of system calls. The command "make pages" writes the programs into package confine, and a
// test checks that the programs agree with the names. Only tests import this package. If a worker
// made the program itself, the names and numbers of all calls would be a tenth of an idle worker's
// memory.
//
// The filter allows the calls in the lists of allowed_linux.go. Almost every other call fails with
// EPERM. But a call that is newer than go-seccomp-bpf fails with ENOSYS, as in a kernel that lacks
// the call. Libraries expect this error, and go on without the call.
//
// The program is a sequence of blocks. Each block decides about one system call, and passes any
// other call on to the next block. Each block expects the number of the call in BPF's register A.
// The numbers come from go-seccomp-bpf. It could also make the program, but with a fault: if a
// condition on an argument fails, the next block finds the argument in register A, and not the
// number of the call.
package filter

import (
	"fmt"
	"maps"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The verdicts on a call.
var (
	permit = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	refuse = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	lacks  = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}
	noTTY  = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOTTY)}
)

// The offsets of the number of the call, the architecture and the arguments in struct seccomp_data
// (seccomp(2)).
const (
	numberOffset   = 0
	archOffset     = 4
	argumentOffset = 16
)

// Program makes the filter's program for one architecture. goarch is the name of the architecture
// in Go. The program allows kill, tgkill and prlimit64 only for the process pid. prlimit64 may also
// get 0, which means the calling process.
func Program(goarch string, pid uint32) ([]bpf.Instruction, error) {
	info, err := arch.GetInfo(goarch)
	if err != nil {
		return nil, fmt.Errorf("there is no seccomp filter for %s: %w", goarch, err)
	}
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
	// Of netlink's protocols only NETLINK_ROUTE is allowed, for the list of interfaces. Through
	// another protocol a worker could reach other processes.
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
	// A new thread is allowed. A new process is refused, because it could outlive the worker.
	// The filter cannot see the arguments of clone3(2). So clone3 fails with ENOSYS, and C
	// libraries then use clone(2).
	add("clone", low(0), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.CLONE_THREAD,
		SkipFalse: 1}, permit, refuse)
	add("clone3", lacks)
	// Shared memory without a file is refused, because the worker's memory limit does not count
	// it.
	add("mmap", low(3), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.MAP_SHARED, SkipFalse: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.MAP_ANONYMOUS, SkipFalse: 1},
		refuse, permit)
	return append(list, refuse), nil
}

// oneOf is the block of a call that is allowed only if an argument has one of the values. The
// parameter otherwise is the verdict for all other values. The upper 32 bits of the argument must
// be 0, even if the kernel ignores them.
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
