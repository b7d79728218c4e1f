package client

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testkit"
)

// fullSocket listens, and its backlog is full. next takes one caller out.
func fullSocket(t *testing.T) (path string, next func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	t.Cleanup(func() { unix.Close(listener) })
	address := &unix.SockaddrUnix{Name: path}
	must(unix.Bind(listener, address))
	must(unix.Listen(listener, 0))
	for err == nil {
		var fd int
		fd, err = unix.Socket(unix.AF_UNIX,
			unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		must(err)
		t.Cleanup(func() { unix.Close(fd) })
		err = unix.Connect(fd, address)
	}
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
	return path, func() {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		must(err)
		unix.Close(fd)
	}
}

// A program that floods tlsd's backlog delays others, and does not turn them away.
func TestAFullQueueIsWaitedFor(t *testing.T) {
	t.Parallel()
	path, next := fullSocket(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	// On a very busy machine the time ends before the first attempt.
	if _, err := connect(ctx, path); !errors.Is(err, syscall.EAGAIN) &&
		!errors.Is(err, os.ErrDeadlineExceeded) &&
		!errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it is full: %v; want EAGAIN when the time is over", err)
	}
	long, done := testkit.Bounded(t), make(chan error)
	go func() {
		conn, err := connect(long, path)
		if err == nil {
			conn.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("it does not wait: %v", err)
	// if connect has not tried yet, this case passes too, and shows nothing
	case <-time.After(20 * time.Millisecond):
	}
	next()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
