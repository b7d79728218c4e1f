package openssl

import (
	"context"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FillSocket writes to the socket, behind the SSL's back, until the peer's window is closed and the
// socket takes no byte more. The peer must read nothing and must have set its receive buffer: Linux
// lets a buffer that nobody has set grow, and the window opens again (tcp_clamp_window). For the
// same reason FillSocket sets the send buffer: an acknowledgement enlarges a send buffer that
// nobody has set (tcp_sndbuf_expand), even if it comes after the last write.
func FillSocket(ctx context.Context, t *testing.T, c *Conn) {
	t.Helper()
	err := c.raw.Control(func(fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF,
			128<<10); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Error(err)
	}
	for {
		full := false
		err := c.raw.Control(func(fd uintptr) {
			for _, size := range []int{64 << 10, 1} {
				for err := error(nil); err == nil; {
					_, err = syscall.Write(int(fd), make([]byte, size))
					if err != nil && err != syscall.EAGAIN {
						t.Error(err)
					}
				}
			}
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP,
				unix.TCP_INFO)
			if err != nil {
				t.Error(err)
				return
			}
			full = info.Unacked == 0 && info.Notsent_bytes > 0 && info.Snd_wnd == 0
		})
		if err != nil {
			t.Error(err)
		}
		if full || t.Failed() {
			return
		}
		if ctx.Err() != nil {
			t.Fatal("the peer's window does not close")
		}
		time.Sleep(time.Millisecond)
	}
}
