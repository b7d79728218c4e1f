package sockets

import "net"

// Peer is the process at the other end of a Unix socket. The kernel has noted the process at its
// connect(2) or listen(2).
type Peer struct {
	PID      int // 0 if the system does not tell
	UID, GID uint32
}

// PeerOf asks the kernel for the process at the other end of a connection.
func PeerOf(conn *net.UnixConn) (Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var peer Peer
	failed := raw.Control(func(fd uintptr) { peer, err = peerOf(int(fd)) })
	if failed != nil {
		return Peer{}, failed
	}
	return peer, err
}
