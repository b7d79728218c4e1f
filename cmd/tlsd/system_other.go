//go:build !linux

package main

import "golang.org/x/sys/unix"

// userIDs and groupIDs return the real and the effective ID of the process. Package unix cannot ask
// darwin and freebsd for the saved ID, so the effective ID is returned in its place.
func userIDs() (r, e, s int)  { return unix.Getuid(), unix.Geteuid(), unix.Geteuid() }
func groupIDs() (r, e, s int) { return unix.Getgid(), unix.Getegid(), unix.Getegid() }

// nameThread does nothing on this system. ps(1) shows a worker by its zeroth argument.
func nameThread(string) {}

// closeOnExec prevents workers from inheriting the descriptors that tlsd was started with.
func closeOnExec() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	for fd := 3; fd < int(min(limit.Cur, 1<<16)); fd++ {
		unix.CloseOnExec(fd)
	}
}
