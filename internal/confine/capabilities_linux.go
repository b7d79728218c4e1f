package confine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The capabilities (capabilities(7)) that a worker keeps if it has them.
const (
	// forOwnUser are what its user may read, and where it may listen. A worker for root loses all that makes root
	// more than that.
	forOwnUser = 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_NET_BIND_SERVICE
	// toBecome are what Become needs. The kernel takes them, too, when the process is another user's.
	toBecome = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
)

// dropCapabilities takes all but kept from the calling thread, and what it executes. The latter is so because
// no_new_privs is set. It is no use to programs that call C without cgo to
// ask a library to do that for all threads.
func dropCapabilities(kept uint64) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // the lower and the upper half
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	// The bounding set bounds what can be executed. That is nothing any more, so
	// it is a second lock, for which not everybody has the key.
	if sets[0].Effective&(1<<unix.CAP_SETPCAP) != 0 {
		for c := range uintptr(64) {
			if kept&(1<<c) != 0 {
				continue
			}
			switch err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); {
			case errors.Is(err, unix.EINVAL): // the kernel has no more
				c = 64
			case err != nil:
				return fmt.Errorf("prctl PR_CAPBSET_DROP %d: %w", c, err)
			}
		}
	}
	inheritable := kept // without it, ambient ones would go
	if kept == toBecome {
		inheritable = 0 // they are not for the user
	}
	for i := range sets {
		keep := uint32(kept >> (32 * i))
		sets[i].Effective &= keep
		sets[i].Permitted &= keep
		sets[i].Inheritable &= uint32(inheritable >> (32 * i))
	}
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
