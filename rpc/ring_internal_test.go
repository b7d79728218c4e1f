package rpc

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// TestAReadThatFailsHasNoBytes: a message's first read is of another system call, whose count may be negative.
func TestAReadThatFailsHasNoBytes(t *testing.T) {
	t.Parallel()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // it is to pass during the wait
	n, err := caller{&server{conn: conn, shared: -1}}.receive(make([]byte, 10))
	if n != 0 || err == nil {
		t.Errorf("got %d, %v", n, err)
	}
}
