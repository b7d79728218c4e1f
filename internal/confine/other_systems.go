//go:build !linux

package confine

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// errOther is the report of a measure that only Linux has.
var errOther = errors.New("not on this system")

// Restart confines nothing. If no confinement is wanted, Restart returns nil. Otherwise it reports
// errOther for each measure that Restart takes on Linux.
func Restart() Measures {
	state := os.Getenv(EnvName)
	os.Unsetenv(EnvName)
	os.Unsetenv(EnvReadable)
	if state == "" {
		return nil
	}
	m := Measures{}
	for _, measure := range []string{"dieFirst", "landlock", "capabilities"} {
		m.note(measure, errOther)
	}
	return m
}

// Conceal keeps the process's memory out of core files. If m is nil, there is no report.
func (m Measures) Conceal() {
	m.note("notTraceable", errOther)
	m.note("noCoreFiles", unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}))
}

// Finish reports that this system has neither a filter of system calls nor no_new_privs.
func (m Measures) Finish() {
	m.note("seccomp", errOther)
	m.note("noNewPrivileges", errOther)
}

// Become changes the groups, the group and the user of this process for good. The process must run
// as root. After an error the process must end.
func (m Measures) Become(id Identity) error {
	groups := make([]int, len(id.Groups))
	for i, g := range id.Groups {
		groups[i] = int(g)
	}
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("setgroups to %d groups: %w", len(groups), err)
	}
	if err := syscall.Setgid(int(id.GID)); err != nil {
		return fmt.Errorf("setgid to %d: %w", id.GID, err)
	}
	if err := syscall.Setuid(int(id.UID)); err != nil {
		return fmt.Errorf("setuid to %d: %w", id.UID, err)
	}
	if id.UID != 0 && syscall.Setuid(0) == nil {
		return fmt.Errorf("user %d can become root again", id.UID)
	}
	return nil
}

// Untraced returns nil, because this system does not say whether a process is traced.
func Untraced() error { return nil }

// LimitMemory returns an error: only Linux has the limit.
func LimitMemory(int64) error { return errOther }
