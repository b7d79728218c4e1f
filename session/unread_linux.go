package session

import "golang.org/x/sys/unix"

// queued is the number of bytes that the caller has sent and that are still in the channel.
func (ch *channel) queued() int {
	n := 0
	ch.raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n
}
