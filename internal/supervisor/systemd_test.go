package supervisor

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestServiceManagerIsTold(t *testing.T) {
	for _, name := range []string{filepath.Join(shortDir(t), "notify"), "@tlsd-test-" + filepath.Base(shortDir(t))} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		must(t, err)
		defer l.Close()
		l.SetDeadline(time.Now().Add(patience))
		t.Setenv("NOTIFY_SOCKET", name)
		d := startDaemon(t, workerPlay{}, nil)
		buf := make([]byte, 100)
		for _, want := range []string{"READY=1", "STOPPING=1"} {
			n, err := l.Read(buf)
			must(t, err)
			if got := string(buf[:n]); got != want {
				t.Errorf("%s: told %q; want %q", name, got, want)
			}
			d.stop()
		}
		must(t, d.wait())
	}
}
