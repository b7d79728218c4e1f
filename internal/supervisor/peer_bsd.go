//go:build darwin || freebsd

package supervisor

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// groupsOf asks the kernel for the groups of the process that connected (LOCAL_PEERCRED, unix(4)).
// The kernel reports at most 16 groups. The first one is the primary group, which is left out.
func groupsOf(conn *net.UnixConn, _ uint32) (groups []uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	failed := raw.Control(func(fd uintptr) {
		var cred *unix.Xucred
		cred, err = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
		if err == nil {
			n := min(max(int(cred.Ngroups), 1), len(cred.Groups))
			groups = cred.Groups[1:n]
		}
	})
	return groups, errors.Join(failed, err)
}
