// Package safefile reads files that only root, or named users, can change: an administrator's
// orders. It also opens files to append what nobody else may read.
//
// # The rules
//
//   - The file, each folder on the way, and each symbolic link on the way belong to root or to one
//     of the users.
//   - No other user can write to the file or to a folder on the way. A folder with the sticky bit,
//     such as /tmp, may be writable, because in it nobody can replace a file of another user.
//   - The file is regular, and opening it never waits.
//   - The way is walked descriptor by descriptor, so the file that was checked is the file that is
//     read.
package safefile

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is the limit of symbolic links on the way, as in Linux.
const maxLinks = 40

// Read returns the content of a file of at most max bytes. The path is absolute. Root and the
// owners are trusted.
func Read(path string, max int64, owners ...uint32) ([]byte, error) {
	f, err := open(path, append(owners, 0))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(text)) > max {
		err = fmt.Errorf("%s: it has more than %d bytes", path, max)
	}
	return text, err
}

// A walk is on its way from the root to a file.
type walk struct {
	owners []uint32
	path   string // for errors
	dir    int    // the folder that the walk has reached
	at     string // its path, without links
	todo   []string
	links  int

	last func(name, at string) (*os.File, error) // if not nil, opens the last name of the way
}

func open(path string, owners []uint32) (*os.File, error) {
	w := walk{owners: owners, path: path, dir: -1}
	return w.walk()
}

// walk goes all the way, and gives the file.
func (w *walk) walk() (*os.File, error) {
	defer func() { unix.Close(w.dir) }()
	if err := w.restart(w.path); err != nil {
		return nil, err
	}
	for len(w.todo) > 0 {
		name := w.todo[0]
		w.todo = w.todo[1:]
		if f, err := w.step(name); f != nil || err != nil {
			return f, err
		}
	}
	return nil, w.notRegular() // it ends with a folder
}

// restart goes to the root, and puts a path before the rest of the walk.
func (w *walk) restart(path string) error {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return w.failed("/", err)
	}
	w.enter(fd, "/")
	w.insert(path)
	_, err = w.check(fd, "/")
	return err
}

func (w *walk) enter(dir int, at string) {
	if w.dir >= 0 {
		unix.Close(w.dir)
	}
	w.dir, w.at = dir, at
}

// insert puts the parts of a path before the rest of the walk.
func (w *walk) insert(path string) {
	parts := slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool {
		return s == "" || s == "."
	})
	w.todo = append(parts, w.todo...)
}

// step goes one name further. At the end of the walk it returns the file, open for reading.
func (w *walk) step(name string) (*os.File, error) {
	at := filepath.Join(w.at, name)
	if w.last != nil && len(w.todo) == 0 {
		return w.last(name, at)
	}
	fd, err := unix.Openat(w.dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, w.failed(at, err)
	}
	st, err := w.check(fd, at)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		w.enter(fd, at)
		return nil, nil
	}
	defer unix.Close(fd)
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return nil, w.follow(fd, at)
	case len(w.todo) > 0:
		return nil, w.failed(at, unix.ENOTDIR)
	}
	return w.read(name, at)
}

// read opens the file itself. The file may have been replaced after the check, so it is checked
// again.
func (w *walk) read(name, at string) (*os.File, error) {
	fd, err := unix.Openat(w.dir, name,
		unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, w.failed(at, err)
	}
	if _, err := w.check(fd, at); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), w.path), nil
}

func (w *walk) follow(link int, at string) error {
	if w.links++; w.links > maxLinks {
		return w.failed(at, unix.ELOOP)
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(link, "", buf)
	if err != nil {
		return w.failed(at, err)
	}
	target := string(buf[:n])
	if strings.HasPrefix(target, "/") {
		return w.restart(target)
	}
	w.insert(target)
	return nil
}

// check checks one step of the way.
func (w *walk) check(fd int, at string) (st unix.Stat_t, err error) {
	if err := unix.Fstat(fd, &st); err != nil {
		return st, w.failed(at, err)
	}
	format, mode := st.Mode&unix.S_IFMT, st.Mode&0o7777
	where := w.path
	switch format {
	case unix.S_IFDIR:
		where += ": the folder " + at
	case unix.S_IFLNK:
		where += ": the link " + at
	case unix.S_IFREG:
	default:
		return st, w.notRegular()
	}
	switch sticky := format == unix.S_IFDIR && mode&unix.S_ISVTX != 0; {
	case !slices.Contains(w.owners, st.Uid):
		err = fmt.Errorf(
			"%s: it belongs to user %d, who could change it; give it to %s (chown)",
			where, st.Uid, w.trusted())
	case format != unix.S_IFLNK && mode&0o022 != 0 && !sticky:
		err = fmt.Errorf("%s: its mode is %04o, so that others than its owner can change "+
			"it; take that from them (chmod go-w)", where, mode)
	}
	return st, err
}

// trusted names the trusted users.
func (w *walk) trusted() string {
	text := "root"
	for _, uid := range w.owners {
		if uid != 0 {
			text += fmt.Sprintf(" or user %d", uid)
		}
	}
	return text
}

func (w *walk) notRegular() error {
	return fmt.Errorf("%s: it is not a regular file; name one", w.path)
}

// failed is the error of a system call.
func (w *walk) failed(at string, err error) error {
	if at == filepath.Clean(w.path) {
		return fmt.Errorf("%s: %w", w.path, err)
	}
	return fmt.Errorf("%s: %s: %w", w.path, at, err)
}
