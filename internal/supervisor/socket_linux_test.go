package supervisor

import (
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"tlsd/internal/testkit"
)

// The socket file has its mode from the start. A change after its creation would leave a moment in
// which other users can connect.
func TestModeHoldsFromTheFirstMoment(t *testing.T) {
	t.Parallel()
	dir := testkit.Dir(t)
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	testkit.Must(t, err)
	defer unix.Close(fd)
	_, err = unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_ATTRIB)
	testkit.Must(t, err)
	s, err := listenAt(filepath.Join(dir, "s"), 0o600)
	testkit.Must(t, err)
	defer s.Close()

	buf := make([]byte, 4096)
	n, err := unix.Read(fd, buf)
	testkit.Must(t, err)
	created := false
	for b := buf[:n]; len(b) > 0; {
		event := (*unix.InotifyEvent)(unsafe.Pointer(&b[0]))
		size := unix.SizeofInotifyEvent + int(event.Len)
		name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:size]), "\x00")
		if name == "s" {
			created = created || event.Mask&unix.IN_CREATE != 0
			if event.Mask&unix.IN_ATTRIB != 0 {
				t.Error("the socket's mode was changed after its creation")
			}
		}
		b = b[size:]
	}
	if !created {
		t.Error("inotify did not report the creation of the socket: the test shows nothing")
	}
}
