// Package sockets has calls that differ between systems. It makes sockets that child processes do
// not inherit, also on systems without SOCK_CLOEXEC. While such a socket is made, syscall.ForkLock
// keeps other goroutines from starting a process. The package also asks the kernel for the process
// at the other end of a socket.
package sockets

import "syscall"

// New makes a socket.
func New(domain, typ int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := syscall.Socket(domain, typ, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	return fd, err
}

// Pair makes two Unix sockets that are connected with each other.
func Pair(typ int) ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, typ, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	return fds, err
}
