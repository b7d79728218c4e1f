package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The rules of the socket's path in the file system:
//
//   - At the start tlsd removes an old socket only if no process serves it.
//   - If several daemons start on one path at the same time, only the daemon that gets the lock on
//     the file PATH.lock serves. The lock file is never removed, because a lock on a removed file
//     would protect nothing.
//   - Listen makes the socket with the right mode from the first moment on. GiveTo may change the
//     mode later.
//   - At the end the daemon removes only its own socket. If another socket has replaced it, that
//     socket remains.

const (
	// maxPath is the length of the longest path of a Unix socket, in bytes: sun_path of unix(7)
	// without its NUL.
	maxPath = 107
	// probeTimeout limits the attempt to connect to an existing socket.
	probeTimeout = time.Second
	// busyTimeout limits the attempts to take a path that is in use. If a daemon is killed
	// while it starts a worker, the lock and the socket stay in use for a moment: the new
	// worker's process has both open from fork(2) to execve(2).
	busyTimeout = 500 * time.Millisecond
)

// busyError says that a path is in use.
type busyError struct{ error }

// Socket is a listening Unix socket.
type Socket struct {
	*net.UnixListener
	Path string

	lock   *os.File    // nil if the service manager made the socket
	made   fs.FileInfo // identifies the file that Listen made
	remove sync.Once
}

// Listen makes the socket at path with the permissions of mode, 0 to 0777. It sets the process's
// umask for a moment. No other goroutine may make files meanwhile.
func Listen(path string, mode fs.FileMode) (*Socket, error) {
	return listenWithin(busyTimeout, path, mode)
}

// listenWithin is Listen with a limit of its own instead of busyTimeout. While the path is in use,
// it tries again, until this time has passed.
func listenWithin(limit time.Duration, path string, mode fs.FileMode) (*Socket, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	for end := time.Now().Add(limit); ; time.Sleep(busyTimeout / 10) {
		s, err := listenOnce(path, mode)
		if !errors.As(err, new(busyError)) || time.Now().After(end) {
			return s, err
		}
	}
}

func listenOnce(path string, mode fs.FileMode) (*Socket, error) {
	// checkFile comes first. Otherwise takeLock would make a lock file beside a file that is no
	// socket.
	if _, err := checkFile(path); err != nil {
		return nil, err
	}
	lock, err := takeLock(path)
	if err != nil {
		return nil, err
	}
	s, err := listenLocked(path, mode)
	if err != nil {
		lock.Close()
		return nil, err
	}
	s.lock = lock
	return s, nil
}

// Remove removes the socket's file, if it is still the file that Listen made. Then Remove releases
// the lock, so that another daemon can take the path. The socket still listens. Remove does nothing
// when it is called again, or if the service manager made the socket.
func (s *Socket) Remove() (err error) {
	s.remove.Do(func() {
		if s.lock == nil {
			return
		}
		defer s.lock.Close()
		var now fs.FileInfo
		if now, err = os.Lstat(s.Path); err == nil && os.SameFile(now, s.made) {
			err = os.Remove(s.Path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	})
	return err
}

func checkPath(path string) error {
	switch {
	case path == "":
		return errors.New("the path of the socket is empty")
	case path[0] == '@':
		return fmt.Errorf("%s: a name without a file (abstract socket) has no "+
			"permissions and is not supported; give a path", path)
	case len(path) > maxPath:
		return fmt.Errorf("%s: the path of a Unix socket has at most %d bytes, this one "+
			"has %d; choose a shorter one", path, maxPath, len(path))
	}
	return nil
}

// takeLock opens or makes the file PATH.lock, and locks it. The lock lasts until the file is
// closed.
func takeLock(path string) (*os.File, error) {
	name := path + ".lock"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: there is no directory %s; make it, or choose "+
			"another path", path, filepath.Dir(path))
	case errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("tlsd would keep its lock in %s, which is a symbolic link; "+
			"remove it, or choose another path", name)
	case err != nil:
		return nil, fmt.Errorf("the socket's lock file: %w", err)
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("tlsd would keep its lock in %s, which is not a regular "+
			"file; remove it, or choose another path", name)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, busyError{fmt.Errorf("another tlsd is serving %s, or about "+
				"to: it holds %s", path, name)}
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return f, nil
}

func listenLocked(path string, mode fs.FileMode) (*Socket, error) {
	if err := clearStale(path); err != nil {
		return nil, err
	}
	old := unix.Umask(int(^mode & 0o777))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, err // the text of err has the path
	}
	l.SetUnlinkOnClose(false) // Remove() removes the file, if it is still this socket's
	made, err := os.Lstat(path)
	if err != nil {
		l.Close()
		return nil, err
	}
	return &Socket{UnixListener: l, Path: path, made: made}, nil
}

// checkFile says whether path is a socket. If there is another kind of file at path, checkFile
// fails.
func checkFile(path string) (bool, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case info.Mode().Type() != fs.ModeSocket:
		return false,
			fmt.Errorf("%s is %s, not a socket; remove it, or choose another path",
				path, fileKind(info.Mode()))
	}
	return true, nil
}

// If there is a socket at path, and no process serves it, clearStale removes it. If there is
// anything else at path, clearStale fails.
func clearStale(path string) error {
	if there, err := checkFile(path); !there {
		return err
	}
	conn, err := net.DialTimeout("unix", path, probeTimeout)
	switch {
	case err == nil:
		conn.Close()
		return busyError{fmt.Errorf("another tlsd is serving %s", path)}
	case errors.Is(err, unix.ECONNREFUSED):
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("the socket of a tlsd that is gone: %w", err)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, unix.EPROTOTYPE):
		return fmt.Errorf("%s is a socket of another type and not tlsd's; choose "+
			"another path", path)
	default: // busy (EAGAIN, timeout), or no permission (EACCES)
		return fmt.Errorf("another tlsd seems to be serving %s: %w", path, err)
	}
}

func fileKind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m.IsRegular():
		return "a file"
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}

// acceptWaiting accepts a connection of a caller that waits already. It returns nil if no caller
// waits.
func (s *Socket) acceptWaiting() (*net.UnixConn, error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	ctlErr := raw.Control(func(lfd uintptr) {
		for fd < 0 {
			fd, err = accept(int(lfd))
			if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED) {
				return
			}
		}
	})
	if ctlErr != nil || errors.Is(err, unix.EAGAIN) {
		return nil, ctlErr
	}
	if err != nil {
		return nil, os.NewSyscallError("accept4", err)
	}
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close() // FileConn has a copy
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}
