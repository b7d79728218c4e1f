package safefile

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Append opens a file, to write at its end. path must be absolute. If there is no file, Append
// makes one with the mode 0600. Root and the users in owners are trusted. The folders and links on
// the way must keep the package's rules. The file must be regular, and not a link. It must have one
// name only (no further hard link), and belong to a trusted user. Its mode must give no access to
// the group and other users.
func Append(path string, owners ...uint32) (*os.File, error) {
	w := walk{owners: append(owners, 0), path: path, dir: -1}
	w.last = w.append
	return w.walk()
}

// CheckAppend returns the error that Append would return, or nil. It makes and changes no file.
func CheckAppend(path string, owners ...uint32) error {
	w := walk{owners: append(owners, 0), path: path, dir: -1}
	absent := errors.New("could be made")
	w.last = func(name, at string) (*os.File, error) {
		err := unix.Faccessat(w.dir, name, unix.F_OK, unix.AT_SYMLINK_NOFOLLOW)
		if !errors.Is(err, unix.ENOENT) {
			return w.appendTo(name, at)
		}
		err = unix.Faccessat(w.dir, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		if err != nil {
			return nil, w.failed(at, err)
		}
		return nil, absent
	}
	f, err := w.walk()
	if errors.Is(err, absent) {
		return nil
	}
	if err == nil {
		f.Close()
	}
	return err
}

const appendFlags = unix.O_WRONLY | unix.O_APPEND | unix.O_NONBLOCK | unix.O_NOCTTY |
	unix.O_NOFOLLOW | unix.O_CLOEXEC

// append opens the file at the end of the path, or makes the file.
func (w *walk) append(name, at string) (*os.File, error) {
	fd, err := unix.Openat(w.dir, name, appendFlags|unix.O_CREAT|unix.O_EXCL, 0o600)
	if errors.Is(err, unix.EEXIST) {
		return w.appendTo(name, at)
	}
	return w.appended(fd, err, at)
}

// appendTo opens an existing file. It refuses a device or a FIFO without opening it, because the
// open alone can have an effect.
func (w *walk) appendTo(name, at string) (*os.File, error) {
	if err := w.looksRegular(name, at); err != nil {
		return nil, err
	}
	fd, err := unix.Openat(w.dir, name, appendFlags, 0)
	return w.appended(fd, err, at)
}

// appended checks the result of an open, and makes an *os.File of the descriptor.
func (w *walk) appended(fd int, err error, at string) (*os.File, error) {
	if err != nil {
		return nil, w.failed(at, err)
	}
	if err := w.private(fd, at); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), w.path), nil
}

func (w *walk) looksRegular(name, at string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(w.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return w.failed(at, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return w.notRegular()
	}
	return nil
}

// private checks that only trusted users can read or write the open file.
func (w *walk) private(fd int, at string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return w.failed(at, err)
	}
	switch mode := st.Mode & 0o7777; {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return w.notRegular()
	case st.Nlink != 1:
		return fmt.Errorf("%s: it has %d names (hard links), and other users may be able "+
			"to reach one of them; choose another file", w.path, st.Nlink)
	case !slices.Contains(w.owners, st.Uid):
		return fmt.Errorf("%s: it belongs to user %d; give it to %s (chown)",
			w.path, st.Uid, w.trusted())
	case mode&0o077 != 0:
		return fmt.Errorf("%s: its mode is %04o, so users besides its owner have access "+
			"to it; remove their permissions (chmod 0600)", w.path, mode)
	}
	return nil
}
