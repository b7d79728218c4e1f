package safefile

import "golang.org/x/sys/unix"

// lookOnly opens a folder without the right to read it.
const lookOnly = unix.O_PATH
