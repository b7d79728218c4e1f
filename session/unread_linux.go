package session

import "golang.org/x/sys/unix"

// queued is the number of the caller's bytes that wait in the channel.
func (ch *channel) queued() int {
	n := 0
	ch.raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n
}
