package filter

import (
	"encoding/binary"
	"runtime"
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// call is a system call as the filter sees it (struct seccomp_data).
type call struct {
	arch, number uint32
	args         [6]uint64
}

// decide runs the filter's program as the kernel does. The virtual machine reads big-endian words,
// so decide writes each word in this order of bytes.
func decide(t *testing.T, vm *bpf.VM, c call) uint32 {
	t.Helper()
	data := binary.BigEndian.AppendUint32(nil, c.number)
	data = binary.BigEndian.AppendUint32(data, c.arch)
	data = append(data, make([]byte, 8)...) // the instruction pointer
	for _, a := range c.args {
		data = binary.BigEndian.AppendUint32(data, uint32(a))
		data = binary.BigEndian.AppendUint32(data, uint32(a>>32))
	}
	v, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(v)
}

// The filter allows a worker the system calls that it needs, and refuses those that reach other
// processes.
func TestFilter(t *testing.T) {
	t.Parallel()
	const pid = 4711
	list, err := Program(runtime.GOARCH, pid)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(list)
	if err != nil {
		t.Fatal(err)
	}
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	native := uint32(info.ID)
	const yes = unix.SECCOMP_RET_ALLOW
	const no = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	const noTerminal = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOTTY)
	const absent = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	for _, name := range outOfReach {
		if number, ok := info.SyscallNames[name]; ok {
			if got := decide(t, vm, call{native, uint32(number),
				[6]uint64{}}); got != no {
				t.Errorf("%s: the filter returns %#x; want %#x", name, got, no)
			}
		}
	}
	for _, tt := range []struct {
		name         string
		arch, number uint32
		args         [6]uint64
		want         uint32
	}{
		{"read", native, unix.SYS_READ, [6]uint64{}, yes},
		{"read of another architecture", unix.AUDIT_ARCH_I386, unix.SYS_READ,
			[6]uint64{}, no},
		{"futex", native, unix.SYS_FUTEX, [6]uint64{}, yes},
		{"openat", native, unix.SYS_OPENAT, [6]uint64{}, yes},
		{"a system call of a later kernel", native, 4000, [6]uint64{}, absent},
		{"flags of a descriptor", native, unix.SYS_FCNTL, [6]uint64{3, unix.F_SETFL}, yes},
		{"an owner of a descriptor", native, unix.SYS_FCNTL, [6]uint64{3, unix.F_SETOWN},
			no},
		{"an owner of a descriptor, with bits that the kernel drops", native,
			unix.SYS_FCNTL, [6]uint64{3, 1<<32 | unix.F_SETOWN}, no},
		// 15 is F_SETOWN_EX
		{"an owner of another kind", native, unix.SYS_FCNTL, [6]uint64{3, 15}, no},
		// 10 is F_SETSIG
		{"the owner's signal", native, unix.SYS_FCNTL, [6]uint64{3, 10}, no},
		{"number of bytes that wait in a socket", native, unix.SYS_IOCTL,
			[6]uint64{3, unix.TIOCINQ}, yes},
		{"an owner of a socket", native, unix.SYS_IOCTL, [6]uint64{3, 0x8902}, noTerminal},
		{"input of a terminal", native, unix.SYS_IOCTL, [6]uint64{3, unix.TIOCSTI},
			noTerminal},
		{"socket IPv4", native, unix.SYS_SOCKET, [6]uint64{unix.AF_INET}, yes},
		{"socket IPv6", native, unix.SYS_SOCKET, [6]uint64{unix.AF_INET6}, yes},
		{"socket of netlink to the kernel", native, unix.SYS_SOCKET,
			[6]uint64{unix.AF_NETLINK}, yes},
		{"socket of netlink to others", native, unix.SYS_SOCKET,
			[6]uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_USERSOCK}, no},
		{"socket of netlink to others, with bits that the kernel drops", native,
			unix.SYS_SOCKET, [6]uint64{1<<32 | unix.AF_NETLINK, unix.SOCK_RAW,
				unix.NETLINK_USERSOCK}, no},
		{"socket of MPTCP", native, unix.SYS_SOCKET,
			[6]uint64{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, yes},
		{"socket of Unix", native, unix.SYS_SOCKET, [6]uint64{unix.AF_UNIX}, no},
		{"socket of Unix, with bits that the kernel drops", native, unix.SYS_SOCKET,
			[6]uint64{1<<32 | unix.AF_INET}, no},
		{"socket of packets", native, unix.SYS_SOCKET, [6]uint64{unix.AF_PACKET}, no},
		{"signal to itself", native, unix.SYS_TGKILL, [6]uint64{pid}, yes},
		{"signal to another", native, unix.SYS_TGKILL, [6]uint64{pid + 1}, no},
		{"kill itself", native, unix.SYS_KILL, [6]uint64{pid}, yes},
		{"kill all", native, unix.SYS_KILL, [6]uint64{1<<64 - 1}, no},
		{"its limits", native, unix.SYS_PRLIMIT64, [6]uint64{0}, yes},
		{"its limits, by its number", native, unix.SYS_PRLIMIT64, [6]uint64{pid}, yes},
		{"another's limits", native, unix.SYS_PRLIMIT64, [6]uint64{1}, no},
		{"a name", native, unix.SYS_PRCTL, [6]uint64{unix.PR_SET_NAME}, yes},
		{"to be dumpable", native, unix.SYS_PRCTL, [6]uint64{unix.PR_SET_DUMPABLE, 1}, no},
		{"to be dumpable, with bits that the kernel drops", native, unix.SYS_PRCTL,
			[6]uint64{1<<32 | unix.PR_SET_DUMPABLE, 1}, no},
		{"to be traced", native, unix.SYS_PRCTL, [6]uint64{unix.PR_SET_PTRACER, 1}, no},
		{"a thread", native, unix.SYS_CLONE,
			[6]uint64{unix.CLONE_VM | unix.CLONE_SIGHAND | unix.CLONE_THREAD}, yes},
		{"a process", native, unix.SYS_CLONE, [6]uint64{uint64(unix.SIGCHLD)}, no},
		{"a process or a thread: the filter cannot see which", native, unix.SYS_CLONE3,
			[6]uint64{}, absent},
		{"memory", native, unix.SYS_MMAP,
			[6]uint64{3: unix.MAP_PRIVATE | unix.MAP_ANONYMOUS}, yes},
		{"memory of a file", native, unix.SYS_MMAP, [6]uint64{3: unix.MAP_SHARED}, yes},
		{"shared memory", native, unix.SYS_MMAP,
			[6]uint64{3: unix.MAP_SHARED | unix.MAP_ANONYMOUS}, no},
	} {
		if got := decide(t, vm, call{tt.arch, tt.number, tt.args}); got != tt.want {
			t.Errorf("%s: the filter returns %#x; want %#x", tt.name, got, tt.want)
		}
	}
	if info == arch.X86_64 {
		if got := decide(t, vm, call{native, 1<<30 | unix.SYS_READ,
			[6]uint64{}}); got != absent {
			t.Errorf("read of the x32 ABI: the filter returns %#x; want %#x", got,
				absent)
		}
	}
}

// outOfReach lists the system calls that the filter must refuse, whatever their arguments are. With
// these calls a worker could reach more than itself and its open descriptors.
var outOfReach = []string{
	// Other programs and processes: their memory, descriptors, limits and scheduling.
	"execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_open",
	"pidfd_getfd", "kcmp", "process_madvise", "process_mrelease", "pidfd_send_signal", "tkill",
	"rt_sigqueueinfo", "rt_tgsigqueueinfo", "move_pages", "migrate_pages", "setpriority",
	"ioprio_set", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler",
	"setpgid", "setsid",
	// A child process, which would outlive the worker.
	"fork", "vfork",
	// Calls that start operations which no filter sees.
	"io_uring_setup", "io_uring_enter", "io_uring_register", "io_setup", "io_submit",
	// Files: operations that Landlock does not cover, or cannot refuse on an older kernel.
	"chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown", "fchownat",
	"utime", "utimes", "futimesat", "utimensat", "setxattr", "lsetxattr", "fsetxattr",
	"setxattrat", "removexattr", "lremovexattr", "fremovexattr", "removexattrat", "mkdir",
	"mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link",
	"linkat", "symlink", "symlinkat", "mknod", "mknodat", "truncate", "ftruncate", "fallocate",
	"creat",
	// File systems and namespaces.
	"mount", "umount2", "pivot_root", "chroot", "open_tree", "open_tree_attr", "move_mount",
	"fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "setns", "unshare",
	"open_by_handle_at", "quotactl", "quotactl_fd", "acct", "swapon", "swapoff",
	"fanotify_init",
	// The kernel, and rights.
	"bpf", "perf_event_open", "userfaultfd", "kexec_load", "kexec_file_load", "init_module",
	"finit_module", "delete_module", "reboot", "keyctl", "add_key", "request_key",
	"clock_settime", "settimeofday", "clock_adjtime", "adjtimex", "sethostname",
	"setdomainname", "iopl", "ioperm", "vhangup", "syslog", "seccomp", "personality",
	"modify_ldt", "capset", "setuid", "setgid", "setreuid", "setregid", "setresuid",
	"setresgid", "setgroups", "setfsuid", "setfsgid",
	// Ways to other processes, and memory that does not count towards a limit of this process.
	"socketpair", "mq_open", "mq_timedsend", "mq_timedreceive", "mq_unlink", "msgget", "msgsnd",
	"msgrcv", "msgctl", "semget", "semop", "semtimedop", "semctl", "shmget", "shmat", "shmctl",
	"memfd_create", "memfd_secret",
}

// Each name in the lists allowed and outOfReach is a name of a system call. A misspelled name would
// allow nothing, or test nothing.
func TestSystemCallsAreKnown(t *testing.T) {
	t.Parallel()
	for _, name := range slices.Concat(allowed, outOfReach) {
		_, amd := arch.X86_64.SyscallNames[name]
		_, arm := arch.AARCH64.SyscallNames[name]
		if !amd && !arm {
			t.Errorf("%s is no system call", name)
		}
	}
	for _, name := range outOfReach {
		if slices.Contains(allowed, name) {
			t.Errorf("%s is in both lists: allowed, and out of reach", name)
		}
	}
}
