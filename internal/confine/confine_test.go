package confine

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWithoutARequestNothingIsConfined(t *testing.T) {
	// Not parallel: it sets the environment.
	for _, state := range []string{"", On, "some reason"} {
		t.Setenv(EnvName, state)
		if got := Restart(); got != state {
			t.Errorf("%q: Restart returns %q", state, got)
		}
		if v, ok := os.LookupEnv(EnvName); ok {
			t.Errorf("%q: the variable stays, as %q", state, v)
		}
	}
}

// decide runs the filter as the kernel does: a system call number and its first argument.
func decide(t *testing.T, prog []unix.SockFilter, arch, number uint32, arg0 uint64) uint32 {
	t.Helper()
	data := map[uint32]uint32{dataNumber: number, dataArch: arch, dataArg0: uint32(arg0), dataArg0Top: uint32(arg0 >> 32)}
	var a uint32
	for pc := 0; pc < len(prog); pc++ {
		in := prog[pc]
		var jump bool
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = data[in.K]
			continue
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump = a == in.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump = a >= in.K
		default:
			t.Fatalf("instruction %d: code %#x", pc, in.Code)
		}
		if jump {
			pc += int(in.Jt)
		} else {
			pc += int(in.Jf)
		}
	}
	t.Fatal("the filter has no end")
	return 0
}

func TestFilter(t *testing.T) {
	t.Parallel()
	const pid = 4711
	prog := program(pid)
	if len(prog) == 0 {
		t.Skip("no filter for this machine")
	}
	native := prog[1].K
	const yes = unix.SECCOMP_RET_ALLOW
	const no = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	for _, tt := range []struct {
		name         string
		arch, number uint32
		arg0         uint64
		want         uint32
	}{
		{"read", native, unix.SYS_READ, 0, yes},
		{"read of another architecture", unix.AUDIT_ARCH_I386, unix.SYS_READ, 0, no},
		{"futex", native, unix.SYS_FUTEX, 0, yes},
		{"openat", native, unix.SYS_OPENAT, 0, yes},
		{"the first that is refused", native, refused[0], 0, no},
		{"the last that is refused", native, refused[len(refused)-1], 0, no},
		{"socket IPv4", native, unix.SYS_SOCKET, unix.AF_INET, yes},
		{"socket IPv6", native, unix.SYS_SOCKET, unix.AF_INET6, yes},
		{"socket of Unix", native, unix.SYS_SOCKET, unix.AF_UNIX, no},
		{"socket of Unix, with bits that the kernel drops", native, unix.SYS_SOCKET, 1<<32 | unix.AF_INET, no},
		{"socket of packets", native, unix.SYS_SOCKET, unix.AF_PACKET, no},
		{"signal to itself", native, unix.SYS_TGKILL, pid, yes},
		{"signal to another", native, unix.SYS_TGKILL, pid + 1, no},
		{"kill itself", native, unix.SYS_KILL, pid, yes},
		{"kill all", native, unix.SYS_KILL, 1<<64 - 1, no},
		{"the last call", native, 450, 0, yes},
	} {
		if got := decide(t, prog, tt.arch, tt.number, tt.arg0); got != tt.want {
			t.Errorf("%s: %#x; want %#x", tt.name, got, tt.want)
		}
	}
	if native == unix.AUDIT_ARCH_X86_64 {
		if got := decide(t, prog, native, 0x40000000|unix.SYS_READ, 0); got != no {
			t.Errorf("x32: %#x", got)
		}
	}
	for _, n := range refused {
		if got := decide(t, prog, native, n, 0); got != no {
			t.Errorf("system call %d: %#x; want it refused", n, got)
		}
	}
}
