package handoff

import (
	"os"

	"golang.org/x/sys/unix"
)

// With the flag noSignal, a send to a receiver that is gone causes no SIGPIPE.
const noSignal = unix.MSG_NOSIGNAL

// domainOf gives the address family of a socket.
func domainOf(fd int) (int, error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return domain, os.NewSyscallError("getsockopt SO_DOMAIN", err)
}

// pending returns the length of the next message without taking it, or 0 at the end of the channel.
// If neither has come yet, the error is EAGAIN.
func pending(fd int) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		if err != unix.EINTR {
			return n, err
		}
	}
}
