package safefile

import "golang.org/x/sys/unix"

// lookOnly is the flag that opens a folder to walk through it. The process needs no permission to
// read the folder.
const lookOnly = unix.O_PATH
