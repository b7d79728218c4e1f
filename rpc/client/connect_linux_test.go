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

// fullSocket makes a listening socket whose queue is full. The function next accepts one caller of
// the queue, so that there is room for another.
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
		t.Fatal("a connect to a full queue, want EAGAIN: ", err)
	}
	return path, func() {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		must(err)
		unix.Close(fd)
	}
}

// If the queue of tlsd's socket is full, connect waits for room until its context ends. So a
// program that fills the queue delays other programs, but they can still connect.
func TestAFullQueueIsWaitedFor(t *testing.T) {
	t.Parallel()
	path, next := fullSocket(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	// On a very busy machine the context may end before the first attempt. Then the error is
	// not EAGAIN.
	if _, err := connect(ctx, path); !errors.Is(err, syscall.EAGAIN) &&
		!errors.Is(err, os.ErrDeadlineExceeded) &&
		!errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the queue is full, and connect returns %v; want EAGAIN or a timeout", err)
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
		t.Fatalf("the queue is full, and connect does not wait: %v", err)
	// The time may also pass before connect has tried. Then this step shows nothing.
	case <-time.After(20 * time.Millisecond):
	}
	next()
	if err := <-done; err != nil {
		t.Errorf("the queue has room, and connect fails: %v", err)
	}
}
