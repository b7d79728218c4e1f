package filter

import "golang.org/x/sys/unix"

// These are the system calls that a worker may make. A worker serves TLS and only reads files. The
// lists have the calls that the Go runtime, any C library and any version of libssl need for that.
// They are generous with calls that reach only the process itself and its open descriptors. Not
// every architecture has all of the calls.
//
// If you add a call, say what the call can reach. It must not affect another process, an object
// that outlives the process, or files that the process has not opened. The exceptions are calls
// that Landlock limits, such as open(2).

// The calls in allowed may have any arguments. The frequent calls come first, because the filter
// goes through the list in this order.
var allowed = []string{
	"futex", "epoll_pwait", "read", "write", "recvmsg", "sendmsg", "recvfrom", "sendto",
	"nanosleep", "clock_nanosleep", "getpid", "gettid", "rt_sigreturn", "sched_yield",
	"madvise", "munmap", "epoll_ctl", "close", "writev", "readv",

	// Descriptors.
	"accept", "accept4", "access", "close_range", "copy_file_range", "dup", "dup2", "dup3",
	"epoll_create", "epoll_create1", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2",
	"faccessat", "faccessat2", "fadvise64", "fchdir", "fdatasync", "fgetxattr", "flistxattr",
	"flock", "fstat", "fstatat", "fstatfs", "fsync", "getcwd", "getdents", "getdents64",
	"getxattr", "getxattrat", "lgetxattr", "listxattr", "listxattrat", "llistxattr", "lseek",
	"lstat", "name_to_handle_at", "newfstatat", "open", "openat", "openat2", "pipe", "pipe2",
	"poll", "ppoll", "pread64", "preadv", "preadv2", "pselect6", "pwrite64", "pwritev",
	"pwritev2", "readahead", "readlink", "readlinkat", "select", "sendfile", "signalfd",
	"signalfd4", "splice", "stat", "statfs", "statx", "tee", "timerfd_create",
	"timerfd_gettime", "timerfd_settime", "umask",
	// Existing sockets. For new sockets there is a rule of its own: see families.
	"bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvmmsg",
	"sendmmsg", "setsockopt", "shutdown",
	// Memory. mmap has a rule of its own in program_linux.go.
	"brk", "get_mempolicy", "map_shadow_stack", "membarrier", "mincore", "mlock", "mlock2",
	"mlockall", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall", "pkey_alloc",
	"pkey_free", "pkey_mprotect",
	// Threads, the process's own signals, and time.
	"alarm", "arch_prctl", "clock_getres", "clock_gettime", "exit", "exit_group",
	"futex_requeue", "futex_wait", "futex_waitv", "futex_wake", "get_robust_list", "getcpu",
	"getitimer", "gettimeofday", "pause", "restart_syscall", "rseq", "rt_sigaction",
	"rt_sigpending", "rt_sigprocmask", "rt_sigsuspend", "rt_sigtimedwait",
	"sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr",
	"sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "set_robust_list",
	"set_tid_address", "setitimer", "sigaltstack", "time", "timer_create", "timer_delete",
	"timer_getoverrun", "timer_gettime", "timer_settime", "times", "uretprobe",
	// Questions about the process and the machine, and the process's own limits.
	"capget", "getegid", "geteuid", "getgid", "getgroups", "getpgid", "getpgrp", "getppid",
	"getpriority", "getrandom", "getresgid", "getresuid", "getrlimit", "getrusage", "getsid",
	"getuid", "setrlimit", "sysinfo", "uname", "wait4", "waitid",
}

// prctls are the allowed operations of prctl(2): names of threads and memory, timer slack,
// no_new_privs, and questions.
var prctls = []uint32{
	unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_VMA, unix.PR_SET_TIMERSLACK,
	unix.PR_GET_TIMERSLACK, unix.PR_SET_NO_NEW_PRIVS, unix.PR_GET_NO_NEW_PRIVS,
	unix.PR_GET_DUMPABLE, unix.PR_GET_SECCOMP, unix.PR_CAPBSET_READ, unix.PR_GET_SECUREBITS,
	unix.PR_GET_TAGGED_ADDR_CTRL, unix.PR_SVE_GET_VL,
}

// fcntls are the allowed commands of fcntl(2). The commands that set a descriptor's owner and
// signal are not among them: with these commands a worker could send signals to other processes.
var fcntls = []uint32{
	unix.F_DUPFD, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL,
	unix.F_GETLK, unix.F_SETLK, unix.F_SETLKW, unix.F_OFD_GETLK, unix.F_OFD_SETLK,
	unix.F_OFD_SETLKW, unix.F_GETPIPE_SZ, unix.F_SETPIPE_SZ, unix.F_ADD_SEALS, unix.F_GET_SEALS,
	dupQuery,
}

// dupQuery is F_DUPFD_QUERY of Linux 6.10.
const dupQuery = 1024 + 3

// ioctls are the allowed requests of ioctl(2): the state of a descriptor, its waiting data, and the
// names of interfaces.
var ioctls = []uint32{
	// 0x5421 is FIONBIO, 0x5450 is FIONCLEX, and 0x5451 is FIOCLEX.
	unix.TCGETS, unix.TIOCGWINSZ, unix.TIOCINQ, unix.TIOCOUTQ, 0x5421, 0x5450, 0x5451,
	unix.SIOCGIFNAME, unix.SIOCGIFINDEX, unix.SIOCGIFFLAGS, unix.SIOCGIFCONF,
}

// families are the allowed families of new sockets: IPv4, IPv6 and netlink. Go's net package gets
// the list of interfaces through netlink. A new Unix socket is refused.
var families = []uint32{unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}
