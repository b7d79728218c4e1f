package openssl

import (
	"context"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FillSocket writes to the socket directly, without the SSL, until the peer's window is closed and
// the socket takes no more bytes. The peer must not read, and must have set the size of its receive
// buffer. Otherwise Linux enlarges the receive buffer, and the window opens again
// (tcp_clamp_window). FillSocket itself sets the size of the send buffer. Otherwise Linux enlarges
// the send buffer when an acknowledgement arrives, even after the final write (tcp_sndbuf_expand).
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
			// Look before the writes: an acknowledgement makes room in the socket, but
			// none comes after the window has closed.
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP,
				unix.TCP_INFO)
			if err != nil {
				t.Error(err)
				return
			}
			full = info.Unacked == 0 && info.Notsent_bytes > 0 && info.Snd_wnd == 0
			for _, size := range []int{64 << 10, 1} {
				for err := error(nil); err == nil; {
					_, err = syscall.Write(int(fd), make([]byte, size))
					if err != nil && err != syscall.EAGAIN {
						t.Error(err)
					}
				}
			}
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
