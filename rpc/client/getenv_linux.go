package client

import (
	"sync"

	"golang.org/x/sys/unix"
)

// moreRights says whether the process has more rights than its user. The kernel reports this in the
// entry AT_SECURE of the auxiliary vector (getauxval(3)). If the vector cannot be read or has no
// such entry, the result is true, to be on the safe side.
var moreRights = sync.OnceValue(func() bool {
	const atSecure = 23
	vector, err := unix.Auxv()
	if err != nil {
		return true
	}
	for _, entry := range vector {
		if entry[0] == atSecure {
			return entry[1] != 0
		}
	}
	return true
})
