// Package safefile reads files that only trusted users can change, such as an administrator's
// settings. Root and the users that the caller names are trusted. The package also opens files to
// append to them: files that only a trusted user can read or change.
//
// # The rules
//
//   - The file, each folder on the way, and each symbolic link on the way belong to trusted users.
//   - No other user can write to the file or to a folder on the way. A folder with the sticky bit,
//     such as /tmp, may be writable, because in it nobody can replace a file of another user.
//   - The file is regular, and opening it never waits.
//   - The way is walked folder by folder, from one descriptor to the next. A name is checked before
//     it is opened, and the open file is checked again. A link is checked before and after it is
//     read. So only a trusted user can replace a file after its check.
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

const (
	maxLinks = 40   // the limit of symbolic links on the way, as in Linux
	pathMax  = 4096 // bytes of a link's target
)

// Read returns the content of a file. path must be absolute. If the file has more than max bytes,
// Read fails. Root and the users in owners are trusted.
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

// A walk goes from the root folder to a file.
type walk struct {
	owners []uint32 // the trusted users, root among them
	path   string   // for errors
	dir    int      // descriptor of the folder that the walk has reached
	at     string   // the path of that folder, without links
	todo   []string // the names that are still to walk
	links  int      // symbolic links that were followed

	last func(name, at string) (*os.File, error) // opens the file at the end; nil: read() does
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
	return nil, w.notRegular() // the path ends with a folder
}

// restart goes back to the root folder. The walk goes on with path, and then with the names that
// were still to walk.
func (w *walk) restart(path string) error {
	w.insert(path)
	return w.descend(unix.AT_FDCWD, "/", "/")
}

// descend goes into a folder. Somebody may have replaced the folder since the method look checked
// it, so descend checks the open folder.
func (w *walk) descend(dir int, name, at string) error {
	const flags = lookOnly | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags, 0)
	if err != nil {
		return w.failed(at, err)
	}
	if err := w.checkOpen(fd, at); err != nil {
		unix.Close(fd)
		return err
	}
	w.enter(fd, at)
	return nil
}

func (w *walk) enter(dir int, at string) {
	if w.dir >= 0 {
		unix.Close(w.dir)
	}
	w.dir, w.at = dir, at
}

// insert puts the names in a path before the names that are still to walk.
func (w *walk) insert(path string) {
	parts := slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool {
		return s == "" || s == "."
	})
	w.todo = append(parts, w.todo...)
}

// step goes one name further. At the last name it returns the open file.
func (w *walk) step(name string) (*os.File, error) {
	at := filepath.Join(w.at, name)
	if w.last != nil && len(w.todo) == 0 {
		return w.last(name, at)
	}
	format, err := w.look(name, at)
	switch {
	case err != nil:
		return nil, err
	case format == unix.S_IFDIR:
		return nil, w.descend(w.dir, name, at)
	case format == unix.S_IFLNK:
		return nil, w.follow(name, at)
	case len(w.todo) > 0:
		return nil, w.failed(at, unix.ENOTDIR)
	}
	return w.read(name, at)
}

// look checks the file, folder or link with this name in the walk's folder, and returns its format
// (S_IFMT). It does not follow a link.
func (w *walk) look(name, at string) (format uint32, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(w.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, w.failed(at, err)
	}
	return uint32(st.Mode) & unix.S_IFMT, w.check(&st, at)
}

// read opens the file at the end of the walk. Somebody may have replaced the file since the method
// look checked it, so read checks the open file.
func (w *walk) read(name, at string) (*os.File, error) {
	fd, err := unix.Openat(w.dir, name,
		unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, w.failed(at, err)
	}
	if err := w.checkOpen(fd, at); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), w.path), nil
}

// follow reads a link, and then checks the link again. Another user may have replaced the link
// since the method look checked it: when the owner of a link in /tmp removes it, any user can make
// a new link of this name.
func (w *walk) follow(name, at string) error {
	if w.links++; w.links > maxLinks {
		return w.failed(at, unix.ELOOP)
	}
	buf := make([]byte, pathMax)
	n, err := unix.Readlinkat(w.dir, name, buf)
	if err != nil {
		return w.failed(at, err)
	}
	if _, err := w.look(name, at); err != nil {
		return err
	}
	target := string(buf[:n])
	if strings.HasPrefix(target, "/") {
		return w.restart(target)
	}
	w.insert(target)
	return nil
}

// checkOpen checks an open file.
func (w *walk) checkOpen(fd int, at string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return w.failed(at, err)
	}
	return w.check(&st, at)
}

// check returns an error if a file, folder or link breaks the package's rules about owners and
// modes.
func (w *walk) check(st *unix.Stat_t, at string) error {
	format, mode := uint32(st.Mode)&unix.S_IFMT, uint32(st.Mode)&0o7777
	where := w.path
	switch format {
	case unix.S_IFDIR:
		where += ": the folder " + at
	case unix.S_IFLNK:
		where += ": the link " + at
	case unix.S_IFREG:
	default:
		return w.notRegular()
	}
	switch sticky := format == unix.S_IFDIR && mode&unix.S_ISVTX != 0; {
	case !slices.Contains(w.owners, st.Uid):
		return fmt.Errorf(
			"%s: it belongs to user %d, who could change it; give it to %s (chown)",
			where, st.Uid, w.trusted())
	case format != unix.S_IFLNK && mode&0o022 != 0 && !sticky:
		return fmt.Errorf("%s: its mode is %04o, so that users besides its owner can "+
			"change it; remove their write permission (chmod go-w)", where, mode)
	}
	return nil
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
	return fmt.Errorf("%s: it is not a regular file; choose a regular file", w.path)
}

// failed adds the paths to the error of a system call.
func (w *walk) failed(at string, err error) error {
	if at == filepath.Clean(w.path) {
		return fmt.Errorf("%s: %w", w.path, err)
	}
	return fmt.Errorf("%s: %s: %w", w.path, at, err)
}
