//go:build !linux

package handoff

import (
	"os"

	"golang.org/x/sys/unix"
)

// noSignal is 0, because darwin lacks the flag MSG_NOSIGNAL. Go programs need no such flag: a
// SIGPIPE that a socket causes does not end them.
const noSignal = 0

// domainOf gives the address family of a Unix or internet socket, and -1 for any other socket.
func domainOf(fd int) (int, error) {
	address, err := unix.Getsockname(fd)
	if err != nil {
		return -1, os.NewSyscallError("getsockname", err)
	}
	switch address.(type) {
	case *unix.SockaddrUnix:
		return unix.AF_UNIX, nil
	case *unix.SockaddrInet4:
		return unix.AF_INET, nil
	case *unix.SockaddrInet6:
		return unix.AF_INET6, nil
	}
	return -1, nil
}

// pending returns MaxMessage when a message has come, because the system does not report the
// length. It returns MaxMessage at the end of the channel, too. If neither has come yet, the error
// is EAGAIN.
func pending(fd int) (int, error) {
	for {
		_, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK)
		if err != unix.EINTR {
			return MaxMessage, err
		}
	}
}
