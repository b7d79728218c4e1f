//go:build darwin || freebsd

package sockets

import (
	"os"

	"golang.org/x/sys/unix"
)

// peerOf reads LOCAL_PEERCRED (unix(4)), which does not tell the process.
func peerOf(fd int) (Peer, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Peer{}, os.NewSyscallError("LOCAL_PEERCRED", err)
	}
	return Peer{UID: cred.Uid, GID: cred.Groups[0]}, nil
}
