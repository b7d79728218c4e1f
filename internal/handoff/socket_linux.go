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
