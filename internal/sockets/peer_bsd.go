//go:build darwin || freebsd

package sockets

import (
	"os"

	"golang.org/x/sys/unix"
)

// peerOf reads LOCAL_PEERCRED (unix(4)), which has no process number. So Peer.PID is 0.
func peerOf(fd int) (Peer, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Peer{}, os.NewSyscallError("LOCAL_PEERCRED", err)
	}
	return Peer{UID: cred.Uid, GID: cred.Groups[0]}, nil
}
