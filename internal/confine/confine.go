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
// of "on". Nothing here can be undone. All but [Measures.Become] is Linux's: the files named
// _linux.go have it, and other_systems.go says of each measure that the system has none.
package confine

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

// An Identity is the user that a worker becomes, with its groups.
type Identity struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"` // supplementary
}

// MaxGroups is how many supplementary groups an Identity may have.
const MaxGroups = 4096
