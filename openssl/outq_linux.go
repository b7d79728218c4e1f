package openssl

import "golang.org/x/sys/unix"

// unacknowledged is the number of sent bytes that the peer's system has not yet acknowledged. A FIN
// counts as one byte (SIOCOUTQ, tcp(7)).
func unacknowledged(fd uintptr) int {
	n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}
