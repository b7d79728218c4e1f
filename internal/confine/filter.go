package confine

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// The filter refuses, with EPERM, what a worker never does. It is a list of
// what is refused and not of what is allowed, because what a libssl, a C library and a Go runtime
// of other versions will want is not known.

// refused are system calls that are refused whatever their arguments.
var refused = []uint32{
	// Other programs, and other processes' memory and descriptors.
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
	unix.SYS_PIDFD_GETFD, unix.SYS_KCMP, unix.SYS_PROCESS_MADVISE, unix.SYS_PIDFD_SEND_SIGNAL, unix.SYS_TKILL,
	unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO,
	// What is done through it, no filter sees.
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	// File systems and namespaces.
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	unix.SYS_SETNS, unix.SYS_UNSHARE, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_QUOTACTL, unix.SYS_ACCT, unix.SYS_SWAPON, unix.SYS_SWAPOFF,
	// The kernel.
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_REBOOT,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_CLOCK_SETTIME, unix.SYS_SETTIMEOFDAY,
	// Only for Unix sockets.
	unix.SYS_SOCKETPAIR,
}

// domains are those in which sockets can be made: the network, and what Go's net package asks
// for the interfaces. A new Unix socket is none of them.
var domains = []uint32{unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// Where struct seccomp_data has what is looked at (seccomp(2)), on little-endian machines.
const (
	dataNumber  = 0
	dataArch    = 4
	dataArg0    = 16
	dataArg0Top = 20
)

// program makes the filter for the process pid, in classic BPF. It is empty on machines that it does not know.
func program(pid uint32) []unix.SockFilter {
	var arch uint32
	switch runtime.GOARCH {
	case "amd64":
		arch = unix.AUDIT_ARCH_X86_64
	case "arm64":
		arch = unix.AUDIT_ARCH_AARCH64
	default:
		return nil
	}
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		least = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		give  = unix.BPF_RET | unix.BPF_K
	)
	refuse := unix.SockFilter{Code: give, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	accept := unix.SockFilter{Code: give, K: unix.SECCOMP_RET_ALLOW}

	// The calls of another architecture have other numbers: all are refused.
	p := []unix.SockFilter{
		{Code: load, K: dataArch},
		{Code: equal, K: arch, Jt: 1},
		refuse,
		{Code: load, K: dataNumber},
	}
	if runtime.GOARCH == "amd64" {
		p = append(p, unix.SockFilter{Code: least, K: 0x40000000, Jf: 1}, refuse) // x32
	}
	for _, number := range refused {
		p = append(p, unix.SockFilter{Code: equal, K: number, Jf: 1}, refuse)
	}
	// Calls whose first argument has to be one of a few values.
	for _, c := range []struct {
		number uint32
		first  []uint32
	}{
		{unix.SYS_SOCKET, domains},
		{unix.SYS_KILL, []uint32{pid}},
		{unix.SYS_TGKILL, []uint32{pid}},
	} {
		block := []unix.SockFilter{
			{Code: load, K: dataArg0Top},
			{Code: equal, K: 0, Jt: 1},
			refuse,
			{Code: load, K: dataArg0},
		}
		for _, v := range c.first {
			block = append(block, unix.SockFilter{Code: equal, K: v, Jf: 1}, accept)
		}
		block = append(block, refuse)
		p = append(p, unix.SockFilter{Code: equal, K: c.number, Jf: uint8(len(block))})
		p = append(p, block...)
	}
	return append(p, accept)
}
