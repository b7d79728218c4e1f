package handoff

import (
	"os"

	"golang.org/x/sys/unix"
)

// noSignal prevents SIGPIPE when the receiver of a send is gone.
const noSignal = unix.MSG_NOSIGNAL

// domainOf gives the address family of a socket.
func domainOf(fd int) (int, error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return domain, os.NewSyscallError("getsockopt SO_DOMAIN", err)
}

// pending is the length of the next message, and 0 at the end of the channel. The message stays in
// the socket. If there is neither a message nor an end, the error is EAGAIN.
func pending(fd int) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		if err != unix.EINTR {
			return n, err
		}
	}
}
