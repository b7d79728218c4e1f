//go:build darwin || freebsd

package supervisor

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerOf asks the kernel who connected (LOCAL_PEERCRED, unix(4)). It does not tell the process,
// and tells 16 groups at most.
func peerOf(conn *net.UnixConn) (Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Xucred
	ctlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	})
	if err = errors.Join(ctlErr, err); err != nil {
		return Peer{}, fmt.Errorf("the caller's credentials: %w", err)
	}
	n := min(max(int(cred.Ngroups), 1), len(cred.Groups))
	return Peer{UID: cred.Uid, GID: cred.Groups[0], Groups: cred.Groups[1:n]}, nil
}
