package client

import (
	"sync"

	"golang.org/x/sys/unix"
)

// moreRights says whether the process has more rights than its user, as the kernel knows it
// (AT_SECURE, getauxval(3)). Every Linux kernel has this entry. Without it the answer is true.
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
