// Package confine takes from a worker process all rights that the worker does not need. So code
// that takes over the worker through the TLS library gains little. The main parts:
//
//   - [Restart], at the very start: no_new_privs, capabilities and Landlock. These measures bind a
//     thread and the programs that the thread executes. On most kernels a Go program that calls C
//     without cgo cannot set them for all of its threads. So Restart sets them for one thread,
//     which executes the program again.
//   - [Measures.Become], if the daemon runs as root and serves another user: the process changes to
//     that user.
//   - [Measures.Finish], when the library is loaded: a seccomp filter, for all threads at once.
//
// A measure that the kernel lacks is left out. The report of a measure is "on", or the reason why
// the measure is left out. On other systems than Linux the package has only Become and the measure
// noCoreFiles (other_systems.go).
package confine

// EnvName is an environment variable. The supervisor sets it to ask for the confinement of a
// worker. When Restart executes the program again, Restart sets the variable to the reports of the
// measures.
const (
	EnvName     = "TLSD_WORKER_CONFINE"
	EnvAsk      = "ask"            // for a worker that serves the daemon's own user
	EnvAskOther = "ask, to Become" // for a worker that serves another user
)

// EnvReadable is an environment variable with a list of folders and files, separated as in PATH. A
// confined worker may read only these and the system's own files. Without the variable, a worker
// may read all that its user may read.
const EnvReadable = "TLSD_WORKER_READABLE"

// On is the report of a measure that is in force.
const On = "on"

// Measures has the report of each measure: On, or the reason why the measure is not in force. It is
// nil if no confinement was asked for.
type Measures map[string]string

func (m Measures) note(measure string, err error) {
	switch {
	case m == nil: // no confinement was asked for
	case err != nil:
		m[measure] = err.Error()
	default:
		m[measure] = On
	}
}

// An Identity is the user that a worker becomes, with the user's groups.
type Identity struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"` // supplementary
}

// MaxGroups is how many supplementary groups an Identity may have.
const MaxGroups = 4096
