package confine

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The filter refuses, with EPERM, what a worker never does. It is a list of
// what is refused and not of what is allowed, because what a libssl, a C library and a Go runtime
// of other versions will want is not known.
//
// go-seccomp-bpf makes the program from the list. Two things it does not do for us, and so they are here:
//
//   - Its programs give a call of another architecture the default answer, which
//     is for a list of what is refused to allow it. [program] refuses it first.
//   - Its LoadFilter takes a filter that some thread could not be given for one that all
//     have. [install] does not.

// refused are the system calls that are refused whatever their arguments. Not every architecture has all of them.
var refused = []string{
	// Other programs, and other processes: their memory, descriptors and limits.
	"execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "process_madvise",
	"process_mrelease", "pidfd_send_signal", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "move_pages", "migrate_pages",
	// A process of its own, which would outlive the worker.
	"fork", "vfork",
	// What is done through it, no filter sees.
	"io_uring_setup", "io_uring_enter", "io_uring_register",
	// What Landlock leaves: the attributes of files.
	"chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown", "fchownat", "utime", "utimes", "futimesat", "utimensat",
	"setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr", "removexattrat",
	// File systems and namespaces.
	"mount", "umount2", "pivot_root", "chroot", "open_tree", "open_tree_attr", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick",
	"mount_setattr", "setns", "unshare", "open_by_handle_at", "quotactl", "quotactl_fd", "acct", "swapon", "swapoff",
	// The kernel.
	"bpf", "perf_event_open", "userfaultfd", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot",
	"keyctl", "add_key", "request_key", "clock_settime", "settimeofday", "clock_adjtime", "adjtimex", "sethostname", "setdomainname",
	"iopl", "ioperm", "vhangup", "syslog",
	// Ways to other processes, and memory that no limit of this one counts.
	"socketpair", "mq_open", "msgget", "semget", "shmget", "memfd_create", "memfd_secret",
}

// prctls are the operations of prctl(2) that are allowed: names, of threads and of memory, and questions.
var prctls = []uint64{
	unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_VMA, unix.PR_SET_TIMERSLACK, unix.PR_GET_TIMERSLACK, unix.PR_SET_NO_NEW_PRIVS,
	unix.PR_GET_NO_NEW_PRIVS, unix.PR_GET_DUMPABLE, unix.PR_GET_SECCOMP, unix.PR_CAPBSET_READ, unix.PR_GET_SECUREBITS,
	unix.PR_GET_TAGGED_ADDR_CTRL, unix.PR_SVE_GET_VL,
}

const (
	refuse = seccomp.ActionErrno // with EPERM
	lacks  = seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)
)

// policy is the filter for the process pid.
func policy(info *arch.Info, pid uint64) seccomp.Policy {
	names := []string{}
	for _, name := range refused {
		if _, ok := info.SyscallNames[name]; ok {
			names = append(names, name)
		}
	}
	is := func(argument uint32, op seccomp.Operation, value uint64) seccomp.Condition {
		return seccomp.Condition{Argument: argument, Operation: op, Value: value}
	}
	when := func(name string, conditions ...seccomp.Condition) seccomp.NameWithConditions {
		return seccomp.NameWithConditions{Name: name, Conditions: conditions}
	}
	without := func(argument uint32, values ...uint64) (list []seccomp.Condition) {
		for _, v := range values {
			list = append(list, is(argument, seccomp.NotEqual, v))
		}
		return list
	}
	return seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls: []seccomp.SyscallGroup{
			{Action: refuse, Names: names},
			{Action: refuse, NamesWithCondtions: []seccomp.NameWithConditions{
				// The network, and what Go's net package asks for the interfaces. A new Unix socket is none of them.
				when("socket", without(0, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK)...),
				when("kill", is(0, seccomp.NotEqual, pid)),
				when("tgkill", is(0, seccomp.NotEqual, pid)),
				when("prlimit64", without(0, 0, pid)...),
				// What Become and Conceal have done stays so, also for a tracer that has the process make the call.
				when("prctl", without(0, prctls...)...),
				when("clone", is(0, seccomp.BitsNotSet, unix.CLONE_THREAD)),
				// Memory that is shared without a file counts towards no limit.
				when("mmap", is(3, seccomp.BitsSet, unix.MAP_SHARED), is(3, seccomp.BitsSet, unix.MAP_ANONYMOUS)),
			}},
			// Its arguments are out of sight. C libraries take clone(2) where it is not there.
			{Action: lacks, Names: []string{"clone3"}},
		},
	}
}

// archOffset is where struct seccomp_data has the architecture (seccomp(2)).
const archOffset = 4

// program makes the filter's program for the process pid.
func program(pid int) ([]bpf.Instruction, error) {
	info, err := arch.GetInfo(runtime.GOARCH)
	if err != nil {
		return nil, fmt.Errorf("there is no seccomp filter for %s: %w", runtime.GOARCH, err)
	}
	p := policy(info, uint64(pid))
	list, err := p.Assemble()
	if err != nil {
		return nil, err
	}
	// The calls of another architecture have other numbers: all are refused.
	return append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: archOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(info.ID), SkipTrue: 1},
		bpf.RetConstant{Val: uint32(refuse) | uint32(unix.EPERM)},
	}, list...), nil
}

// install puts the program before all threads of the process.
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
	// With TSYNC the other threads get no_new_privs, too.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl PR_SET_NO_NEW_PRIVS: %w", err)
	}
	fprog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	switch {
	case errno != 0:
		return fmt.Errorf("seccomp: %w", errno)
	case r != 0:
		return fmt.Errorf("thread %d cannot have the seccomp filter", r)
	}
	return nil
}
