// Package sockets makes sockets that the programs which this process starts do not inherit, on
// every system. Not every system can say so in socket(2) itself, as Linux can.
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
