//go:build !linux

package safefile

import "golang.org/x/sys/unix"

// lookOnly opens a folder, which its user must be able to read.
const lookOnly = unix.O_RDONLY
