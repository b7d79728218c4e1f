//go:build !linux

package supervisor

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// On Linux noSignal is a flag that prevents SIGPIPE. Here it is 0, because darwin has no such flag.
// A SIGPIPE from a socket does not end a Go program.
const noSignal = 0

// accept accepts a connection, non-blocking and close-on-exec.
func accept(listener int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, _, err := unix.Accept(listener)
	if err != nil {
		return -1, err
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// GiveTo gives the socket's file to a group, and sets the permissions of the file. A gid of -1
// keeps the group. If this process has no right to give the file to the group, the error wraps
// EPERM, and the file is unchanged.
func (s *Socket) GiveTo(gid int, mode fs.FileMode) error {
	if s.lock == nil {
		return nil // the file is the service manager's
	}
	if info, err := os.Lstat(s.Path); err != nil || !os.SameFile(info, s.made) {
		return fmt.Errorf("%s has been replaced", s.Path)
	}
	err := unix.Fchownat(unix.AT_FDCWD, s.Path, -1, gid, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("give %s to group %d: %w", s.Path, gid, err)
	}
	return unix.Fchmodat(unix.AT_FDCWD, s.Path, uint32(mode.Perm()), unix.AT_SYMLINK_NOFOLLOW)
}
