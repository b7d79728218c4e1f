package confine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The capabilities (capabilities(7)) that a worker keeps, as far as the daemon has them.
const (
	// forOwnUser are the capabilities that a worker of the daemon's own user keeps: for reading
	// all files, and for listening on ports below 1024. Even if the daemon runs as root, its
	// workers lose every other power of root.
	forOwnUser = 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_NET_BIND_SERVICE
	// toBecome are the capabilities that Become needs. The kernel drops them when Become
	// changes the user.
	toBecome = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
)

// dropCapabilities takes all capabilities but those in the parameter keep from the calling thread.
// The programs that the thread executes do not get them back, because no_new_privs is set.
func dropCapabilities(keep uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // the lower and the upper half
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	// The bounding set limits the capabilities of executed programs. It is a second safeguard
	// besides no_new_privs. A change of the set needs CAP_SETPCAP, which not every daemon has.
	if sets[0].Effective&(1<<unix.CAP_SETPCAP) != 0 {
		for c := range uintptr(64) {
			if keep&(1<<c) != 0 {
				continue
			}
			err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
			// EINVAL: the kernel has no capability of this number.
			if err != nil && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("prctl PR_CAPBSET_DROP %d: %w", c, err)
			}
		}
	}
	// Later the worker executes itself. If its user is not root, the exec takes all
	// capabilities that are not ambient. A capability that is not inheritable cannot be
	// ambient. So the capabilities in the parameter keep stay inheritable.
	inheritable := keep
	if keep == toBecome {
		// This worker is root, which keeps its capabilities in the exec. Later the worker
		// becomes another user, and that user's programs must not inherit a capability.
		inheritable = 0
	}
	for i := range sets {
		half := uint32(keep >> (32 * i))
		sets[i].Effective &= half
		sets[i].Permitted &= half
		sets[i].Inheritable &= uint32(inheritable >> (32 * i))
	}
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
