package policy

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Folders are those that files may be in, at any depth. Nil is every folder.
//
// What counts is where the file that is open really is, as the kernel says, so that no symbolic link, no ".."
// and no renaming in between leads around the rule. A hard link is a file of the folder that it is in: who
// may write into one of the folders, decides what is in it.
type Folders []Folder

// Hold says whether the open file is in one of the folders.
func (l Folders) Hold(f *os.File) bool {
	if l == nil {
		return true
	}
	path, err := realPath(f)
	if err != nil {
		return false
	}
	for _, folder := range l {
		if folder.holds(path) {
			return true
		}
	}
	return false
}

func (f Folder) holds(path string) bool {
	fd, err := unix.Open(f.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // nothing is in a folder that is not there
	}
	d := os.NewFile(uintptr(fd), f.path)
	defer d.Close()
	real, err := realPath(d)
	return err == nil && beneath(real, path)
}

// HoldName is Hold for a file that could not be opened, by its name alone.
func (l Folders) HoldName(path string) bool {
	if l == nil {
		return true
	}
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

// realPath is where an open file is.
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
