package session

import (
	"net/netip"
	"os"
	"strings"
	"syscall"
)

// beginConnect begins to connect a socket that the net package is about to connect, which may be done twice (connect(2)). A peer on this machine
// has accepted when the second call comes, and so a goroutine need not wait for it, with all that this takes. The error is the
// one that the second call would have.
func beginConnect(network string, a netip.AddrPort, socket syscall.RawConn) error {
	if a.Addr().Zone() != "" {
		return nil // it is the net package's to find the zone's number
	}
	var to syscall.Sockaddr = &syscall.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if strings.HasSuffix(network, "4") {
		if !a.Addr().Is4() {
			return nil
		}
		to = &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	var err error
	if e := socket.Control(func(fd uintptr) { err = syscall.Connect(int(fd), to) }); e != nil {
		return e
	}
	switch err {
	case nil, syscall.EINPROGRESS, syscall.EALREADY, syscall.EINTR:
		return nil
	}
	return os.NewSyscallError("connect", err)
}
