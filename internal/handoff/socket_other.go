//go:build !linux

package handoff

import (
	"os"

	"golang.org/x/sys/unix"
)

// noSignal is not needed: a Go program survives SIGPIPE of a socket, and darwin has no such flag.
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

// pending is the length of the longest possible message, because the system does not tell the
// length of the next one. If there is neither a message nor the end of the channel, the error is
// EAGAIN.
func pending(fd int) (int, error) {
	for {
		_, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK)
		if err != unix.EINTR {
			return MaxMessage, err
		}
	}
}
