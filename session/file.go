package session

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"tlsd/internal/kind"
	"tlsd/openssl"
)

// Limits of the files that a caller names, in bytes.
const (
	maxBundle = openssl.MaxPEM
	maxCert   = 1 << 20
	maxKey    = 1 << 20
)

// An opener opens a file for reading. It must not block, for example on a FIFO. If its error is an
// *Error, readFile returns the error as it is. Otherwise readFile adds the path.
type opener func() (*os.File, error)

// readPEM reads a regular file of at most limit bytes. It never waits: it refuses a FIFO or a
// device, and does not read it.
func readPEM(path string, limit int64, open opener) ([]byte, error) {
	data, _, err := readFile(path, limit, open)
	return data, err
}

// readFile is readPEM, and also returns what stat(2) says about the file.
func readFile(path string, limit int64, open opener) ([]byte, fs.FileInfo, error) {
	if !filepath.IsAbs(path) {
		return nil, nil, fail(kind.File, "%q: the path must be absolute", path)
	}
	f, err := open()
	var refusal *Error
	if errors.As(err, &refusal) {
		return nil, nil, refusal
	}
	if err != nil {
		return nil, nil, fileError(path, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, fileError(path, err)
	}
	if st.IsDir() {
		return nil, nil, fail(kind.File, "%s: is a directory", path)
	}
	if !st.Mode().IsRegular() {
		return nil, nil, fail(kind.File, "%s: not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, nil, fileError(path, err)
	}
	if int64(len(data)) > limit {
		return nil, nil, fail(kind.File, "%s: larger than %d bytes", path, limit)
	}
	if len(data) == 0 {
		return nil, nil, fail(kind.File, "%s: the file is empty", path)
	}
	return data, st, nil
}

func fileError(path string, err error) *Error {
	out := fail(kind.File, "%s: %v", path, errors.Unwrap(err))
	if errors.Unwrap(err) == nil {
		out.Why = fmt.Sprintf("%s: %v", path, err)
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		out.Errno = unix.ErrnoName(errno)
	}
	return out
}
