package policy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Open opens a file for reading, and never waits for it. If the file is in none of the folders, the
// error is ErrOutside. A missing file whose path is in none of the folders gives the same error. So
// the error does not reveal which files exist elsewhere.
func (l Folders) Open(path string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	if l == nil {
		return os.OpenFile(path, flags, 0)
	}
	// Find the real place of the file.
	place, err := openat2(unix.AT_FDCWD, path, unix.O_PATH, unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		if noOpenat2(err) {
			err = fmt.Errorf("the policy's folders need openat2(2) of Linux 5.6: %w",
				err)
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		if lack(err) {
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		// A link of /proc, or links in a circle, cause ELOOP. Such a path counts as
		// outside, even if its text begins with an allowed folder.
		if l.holdName(path) && !errors.Is(err, unix.ELOOP) {
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return nil, ErrOutside
	}
	defer place.Close()
	real, err := realPath(place)
	if err != nil {
		return nil, ErrOutside
	}
	for _, folder := range l {
		f, inside, err := folder.open(real, flags)
		if lack(err) {
			inside = true // perhaps: err does not depend on the file
		}
		if inside && err != nil {
			err = &os.PathError{Op: "open", Path: path, Err: err}
		}
		if inside {
			return f, err
		}
	}
	return nil, ErrOutside
}

// open opens a file by its real path. inside is false if the path is not below the folder, or if
// the folder cannot be opened.
func (f Folder) open(real string, flags uint64) (file *os.File, inside bool, err error) {
	fd, err := unix.Open(f.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if lack(err) {
		return nil, false, err
	}
	if err != nil {
		return nil, false, nil // a folder that cannot be opened allows no file
	}
	dir := os.NewFile(uintptr(fd), f.path)
	defer dir.Close()
	folder, err := realPath(dir)
	if err != nil || !beneath(folder, real) {
		return nil, false, nil
	}
	rel := strings.TrimPrefix(real[len(strings.TrimSuffix(folder, "/")):], "/")
	file, err = openat2(fd, rel, flags,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
	return file, true, err
}

// openat2 is openat2(2). Its error is the bare errno, without the path.
func openat2(dir int, path string, flags, resolve uint64) (*os.File, error) {
	for {
		fd, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC,
			Resolve: resolve})
		if err == nil {
			return os.NewFile(uintptr(fd), path), nil
		}
		// openat2 does not try again after EAGAIN, because a program with a lease of the
		// file (fcntl(2)) could cause EAGAIN for ever.
		if err != unix.EINTR {
			return nil, err
		}
	}
}

// lack says whether an open has failed because the process or the machine lacks descriptors or
// memory. Such an error does not depend on the file.
func lack(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) ||
		errors.Is(err, unix.ENOMEM)
}

// noOpenat2 says whether err, an error of openat2, comes from a kernel without openat2(2), or from
// a sandbox that forbids the call. In both cases openat2 cannot even open "/".
func noOpenat2(err error) bool {
	if err != unix.ENOSYS && err != unix.EPERM && err != unix.EACCES {
		return false
	}
	root, err := openat2(unix.AT_FDCWD, "/", unix.O_PATH, 0)
	if err == nil {
		root.Close()
	}
	return err != nil
}

// holdName says whether the text of a path is below one of the folders. holdName follows no links.
func (l Folders) holdName(path string) bool {
	for _, folder := range l {
		if beneath(folder.path, filepath.Clean(path)) {
			return true
		}
	}
	return false
}

func beneath(folder, path string) bool {
	return strings.HasPrefix(path, strings.TrimSuffix(folder, "/")+"/")
}

// realPath is the path of an open file.
func realPath(f *os.File) (path string, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return "", err
	}
	ctlErr := raw.Control(func(fd uintptr) {
		path, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(int(fd)))
	})
	if ctlErr != nil {
		return "", ctlErr
	}
	return path, err
}
