package main

import (
	"math"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// userIDs and groupIDs give the real, the effective and the saved ID of the process.
func userIDs() (r, e, s int)  { return unix.Getresuid() }
func groupIDs() (r, e, s int) { return unix.Getresgid() }

// nameThread names the calling thread. The kernel keeps 15 bytes.
func nameThread(text string) {
	name := [16]byte{}
	copy(name[:15], text)
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
}

// closeOnExec prevents workers from inheriting the descriptors that tlsd was started with.
func closeOnExec() {
	if unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	entries, _ := os.ReadDir("/proc/self/fd") // Linux before 5.11
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= 3 {
			unix.CloseOnExec(fd)
		}
	}
}
