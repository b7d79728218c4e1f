//go:build !linux

package safefile

import "golang.org/x/sys/unix"

// lookOnly is the flag that opens a folder to walk through it. Without O_PATH the process needs the
// permission to read the folder.
const lookOnly = unix.O_RDONLY
