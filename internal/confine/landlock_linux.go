package confine

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	landlock "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// This file uses Landlock (landlock(7)). Before version 8 of Landlock, a Go program that calls C
// without cgo cannot restrict all of its threads. So restrict() restricts the calling thread, and
// tlsd then executes itself in this thread: see Restart. Of go-landlock only the system calls are
// used, because its other functions restrict all threads.

// Each version of Landlock knows the rights of the versions before it, and may add some.
const (
	rightsOf1 = landlock.AccessFSMakeSym<<1 - 1 // version 1: all rights up to MakeSym
	scopes    = landlock.ScopeAbstractUnixSocket | landlock.ScopeSignal
)

// handled are the rights that a version of Landlock can take away.
func handled(version int) landlock.RulesetAttr {
	attr := landlock.RulesetAttr{HandledAccessFS: rightsOf1}
	for _, later := range []struct {
		version int
		right   uint64
	}{
		{2, landlock.AccessFSRefer},
		{3, landlock.AccessFSTruncate},
		{5, landlock.AccessFSIoctlDev},
		{9, landlock.AccessFSResolveUnix},
	} {
		if version >= later.version {
			attr.HandledAccessFS |= later.right
		}
	}
	if version >= 6 {
		attr.Scoped = scopes
	}
	return attr
}

// restrict takes these rights from the calling thread, and from the programs that it executes:
//
//   - to write, make and remove files;
//   - to execute files other than this program and its dynamic linker;
//   - to read files, except those at or below the paths in readable and ofTheSystem();
//   - to send signals to other processes, and to connect to their Unix sockets.
//
// If the list readable is empty, restrict takes no right to read. An old version of Landlock takes
// fewer rights: see handled(). restrict returns the kernel's version of Landlock.
func restrict(readable []string) (version int, err error) {
	version, err = landlock.LandlockGetABIVersion()
	if err != nil {
		return 0, noLandlock(err)
	}
	return version, restrictAs(version, readable)
}

// noLandlock says why there is no Landlock (landlock(7)).
func noLandlock(err error) error {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("the kernel has no Landlock: %w", err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("the kernel has Landlock, but was not told to use it (lsm= of "+
			"its command line): %w", err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("a filter of system calls around tlsd forbids Landlock (a "+
			"unit's SystemCallFilter= lacks @sandbox, or a container's profile): %w",
			err)
	}
	return fmt.Errorf("the kernel refuses Landlock: %w", err)
}

// truncation returns an error if this version of Landlock cannot keep a process from truncating
// files. Files are truncated by truncate(2), and by open(2) with O_TRUNC.
func truncation(version int) error {
	if version < 3 {
		return fmt.Errorf("version %d of Landlock cannot forbid truncation; Linux 6.2 can",
			version)
	}
	return nil
}

// restrictAs does what restrict does, with a given version of Landlock.
func restrictAs(version int, readable []string) error {
	attr := handled(version)
	rules, err := landlock.LandlockCreateRuleset(&attr, 0)
	if err != nil {
		return os.NewSyscallError("landlock_create_ruleset", err)
	}
	defer unix.Close(rules)
	if len(readable) == 0 {
		readable = []string{"/"}
	} else {
		readable = append(readable, ofTheSystem()...)
	}
	for _, path := range readable {
		err := allow(rules, path, landlock.AccessFSReadFile|landlock.AccessFSReadDir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	const self = "/proc/self/exe"
	const execute = landlock.AccessFSExecute | landlock.AccessFSReadFile // execve(2) needs both
	if err := allow(rules, self, execute); err != nil {
		return err
	}
	// The kernel also executes the program's dynamic linker, which needs the same rights.
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
		if err := allow(rules, strings.TrimRight(string(name), "\x00"),
			execute); err != nil {
			return err
		}
	}
	return os.NewSyscallError("landlock_restrict_self", landlock.LandlockRestrictSelf(rules, 0))
}

// ofTheSystem lists the paths that every worker may read: libraries and their configuration, the
// system's store of CAs, and the files of the resolver and the Go runtime. The fixed paths are
// folders, because files may be replaced later, and a rule for a file does not hold for the new
// file.
func ofTheSystem() []string {
	list := []string{"/usr", "/lib", "/lib32", "/lib64", "/etc", "/dev", "/proc", "/sys"}
	if real, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil {
		list = append(list, filepath.Dir(real))
	}
	for _, name := range []string{"LD_LIBRARY_PATH", "LD_PRELOAD", "OPENSSL_CONF",
		"OPENSSL_MODULES", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		list = append(list, strings.FieldsFunc(os.Getenv(name), func(c rune) bool {
			return c == ':' || c == ' '
		})...)
	}
	return list
}

// allow adds a rule that gives the rights in access: to a file, or to a folder and all below it.
func allow(rules int, path string, access uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &^= landlock.AccessFSReadDir
	}
	attr := landlock.PathBeneathAttr{AllowedAccess: access, ParentFd: fd}
	if err := landlock.LandlockAddPathBeneathRule(rules, &attr, 0); err != nil {
		return fmt.Errorf("landlock_add_rule for %s: %w", path, err)
	}
	return nil
}
