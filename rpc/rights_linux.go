package rpc

import "golang.org/x/sys/unix"

// soPassRights is SO_PASSRIGHTS of Linux 6.16: whether a socket accepts descriptors.
const soPassRights = 83

// refuseDescriptors makes a connected channel refuse descriptors from now on, if the kernel can. It
// also looks for descriptors that wait in the channel's queue already. If it finds some, or if it
// cannot look at the whole queue, the result "some" is true, and the channel must not be used.
func refuseDescriptors(fd int) (some bool) {
	// An older kernel does not know the option.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, soPassRights, 0)
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil || n <= 0 {
		// The queue is empty. So it has no descriptor, because a descriptor comes with at
		// least one byte. (The ioctl fails only for a socket that listens, and fd is
		// connected.)
		return false
	}
	// Recvmsg gets no room for control messages. So the kernel sets MSG_CTRUNC if the queue has
	// descriptors.
	const look = unix.MSG_PEEK | unix.MSG_DONTWAIT
	got, _, flags, _, err := unix.Recvmsg(fd, make([]byte, n), nil, look)
	// A caller can set SO_PEEK_OFF, so that Recvmsg begins behind the descriptors. Then Recvmsg
	// returns fewer bytes than n.
	return err != nil || got < n || flags&unix.MSG_CTRUNC != 0
}
