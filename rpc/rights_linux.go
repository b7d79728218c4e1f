package rpc

import "golang.org/x/sys/unix"

// soPassRights is SO_PASSRIGHTS of Linux 6.16: whether a socket can be sent descriptors.
const soPassRights = 83

// keepOut has a channel take no descriptors from now on, where the kernel can do that, and says
// whether some wait in it, or may.
func refuseDescriptors(fd int) (some bool) {
	// An older kernel does not know it.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, soPassRights, 0)
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil || n <= 0 {
		return false
	}
	// Without room for them, the kernel says that there are some.
	const look = unix.MSG_PEEK | unix.MSG_DONTWAIT
	got, _, flags, _, err := unix.Recvmsg(fd, make([]byte, n), nil, look)
	// A caller can have the look begin behind them (SO_PEEK_OFF). Then it does not see all.
	return err != nil || got < n || flags&unix.MSG_CTRUNC != 0
}
