package supervisor

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// With the flag noSignal, a send to a receiver that is gone causes no SIGPIPE.
const noSignal = unix.MSG_NOSIGNAL

// accept accepts a connection, non-blocking and close-on-exec.
func accept(listener int) (int, error) {
	fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	return fd, err
}

// GiveTo gives the socket's file to a group, and sets the permissions of the file. A gid of -1
// keeps the group. If this process has no right to give the file to the group, the error wraps
// EPERM, and the file is unchanged.
func (s *Socket) GiveTo(gid int, mode fs.FileMode) error {
	if s.lock == nil {
		return nil // the file is the service manager's
	}
	fd, err := unix.Open(s.Path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: s.Path, Err: err}
	}
	f := os.NewFile(uintptr(fd), s.Path)
	defer f.Close()
	if info, err := f.Stat(); err != nil || !os.SameFile(info, s.made) {
		return fmt.Errorf("%s has been replaced", s.Path)
	}
	if err := unix.Fchownat(fd, "", -1, gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("give %s to group %d: %w", s.Path, gid, err)
	}
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
}
