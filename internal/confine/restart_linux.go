package confine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Call Restart before anything else in a worker. If no confinement is wanted, it only calls
// dieFirst(), and returns nil. If the environment asks for the confinement (EnvName), Restart calls
// dieFirst(), confines the calling thread, and executes the program again. In the new program,
// Restart only makes the process undumpable, and returns the reports of the measures. If the
// program cannot be executed again, the reports say so.
func Restart() Measures {
	state := os.Getenv(EnvName)
	os.Unsetenv(EnvName)
	readable := filepath.SplitList(os.Getenv(EnvReadable))
	os.Unsetenv(EnvReadable)
	m := Measures{}
	switch {
	case state == "":
		_ = dieFirst() // without confinement nothing reports the error
		return nil
	case state != EnvAsk && state != EnvAskOther:
		_ = hide() // as early as possible; Conceal repeats and reports it
		if err := json.Unmarshal([]byte(state), &m); err != nil {
			m.note("landlock", fmt.Errorf("not known: %s=%q: %w", EnvName, state, err))
		}
		return m
	}
	m.note("dieFirst", dieFirst())
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		m.note("landlock", fmt.Errorf("prctl PR_SET_NO_NEW_PRIVS: %w", err))
		m["capabilities"] = m["landlock"]
	} else {
		version, err := restrict(readable)
		m.note("landlock", err)
		if err == nil {
			m.note("landlockTruncate", truncation(version))
		}
		keep := uint64(forOwnUser)
		if state == EnvAskOther {
			keep = toBecome
		}
		m.note("capabilities", dropCapabilities(keep))
	}
	report, err := json.Marshal(m)
	if err == nil {
		err = syscall.Exec("/proc/self/exe", os.Args,
			append(os.Environ(), EnvName+"="+string(report)))
	}
	for measure := range m {
		m.note(measure, fmt.Errorf("only one thread has this protection, because "+
			"tlsd cannot execute itself again: %w", err))
	}
	return m
}

// Conceal protects the memory of the process, which will hold keys. No core file gets the memory,
// and other programs of the same user cannot read it. If m is nil, there is no report.
func (m Measures) Conceal() {
	m.note("notTraceable", hide())
	m.note("noCoreFiles", unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}))
}

// Finish installs the seccomp filter in all threads of the process.
func (m Measures) Finish() {
	list, err := program(os.Getpid())
	if err == nil {
		err = install(list)
	}
	m.note("seccomp", err)
	m.note("noNewPrivileges", noNewPrivileges())
}

// noNewPrivileges returns an error if no_new_privs is not set.
func noNewPrivileges() error {
	v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err == nil && v != 1 {
		err = fmt.Errorf("not set")
	}
	return err
}
