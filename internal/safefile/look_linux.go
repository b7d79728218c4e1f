package safefile

import "golang.org/x/sys/unix"

// lookOnly is the flag that opens a folder to walk through it. With O_PATH the process needs no
// permission to read the folder.
const lookOnly = unix.O_PATH
