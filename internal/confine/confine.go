// Package confine takes from a worker process what it never needs, so that code which
// takes it over through the TLS library gains little. It has three parts:
//
//   - [Restart], at the very start: what holds for a thread and what it executes, that is
//     no_new_privs, capabilities and Landlock. A Go program that calls C without cgo cannot do that to all of its
//     threads on most kernels, so it does it to one and executes itself.
//   - [Measures.Become], where root's daemon serves another user: the process becomes that user's.
//   - [Measures.Finish], when the library is loaded: a seccomp filter, for all threads at once.
//
// What the kernel does not have is left out, and reported as the reason instead
// of "on". Nothing here can be undone.
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

// EnvName is the environment variable by which the supervisor asks for the confinement of a worker, and by which
// Restart tells the program that it executes what it has reached.
const (
	EnvName     = "TLSD_WORKER_CONFINE"
	EnvAsk      = "ask"            // of one that serves the daemon's own user
	EnvAskOther = "ask, to Become" // of one that will serve another
)

// EnvReadable is the environment variable by which the supervisor names the folders and files, as in PATH, that a
// confined worker may read besides those of the system; without it, it may read all that its user may.
const EnvReadable = "TLSD_WORKER_READABLE"

// On is the report of a measure that holds.
const On = "on"

// Measures are what is done to confine a worker, each On or the reason why not.
type Measures map[string]string

func (m Measures) note(measure string, err error) {
	switch {
	case m == nil: // not wanted, so not reported
	case err != nil:
		m[measure] = err.Error()
	default:
		m[measure] = On
	}
}

// Restart has the kernel kill this process before the one that has started it, when memory is
// short. Then it confines the calling thread and executes the program again, if the
// environment asks for that. In the program that is executed again, it does nothing but return the measures; they are nil if no
// confinement is wanted. It is called before anything else.
func Restart() Measures {
	state := os.Getenv(EnvName)
	os.Unsetenv(EnvName)
	readable := filepath.SplitList(os.Getenv(EnvReadable))
	os.Unsetenv(EnvReadable)
	m := Measures{}
	switch {
	case state == "":
		_ = dieFirst() // nobody has asked for a report
		return nil
	case state != EnvAsk && state != EnvAskOther:
		_ = hide() // as early as can be; Conceal reports it
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
		err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), EnvName+"="+string(report)))
	}
	for measure := range m {
		m.note(measure, fmt.Errorf("only one thread has it, because tlsd cannot be executed again: %w", err))
	}
	return m
}

// Conceal keeps the process's memory out of core files and from its user's other
// programs: there will be keys in it. An m of nil does not report that.
func (m Measures) Conceal() {
	m.note("notTraceable", hide())
	m.note("noCoreFiles", unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}))
}

// Finish puts the seccomp filter before all threads of the process.
func (m Measures) Finish() {
	list, err := program(os.Getpid())
	if err == nil {
		err = install(list)
	}
	m.note("seccomp", err)
	m.note("noNewPrivileges", held())
}

// held tells whether no_new_privs holds.
func held() error {
	v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err == nil && v != 1 {
		err = fmt.Errorf("not set")
	}
	return err
}
