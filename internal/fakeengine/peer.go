package fakeengine

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tlsd/internal/sockets"
)

// These are peers for connections. All listen on 127.0.0.1, return their port, and are gone at the
// end of the test.

// Echo is a TLS server that sends its input back, and answers close_notify with close_notify.
func Echo(tb testing.TB, cert tls.Certificate) int {
	return Serve(tb, func(nc net.Conn) {
		t := tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{cert}})
		defer t.Close()
		io.Copy(t, t)
	})
}

// Silent is a server that takes connections and data, and sends nothing.
func Silent(tb testing.TB) int {
	return Serve(tb, func(nc net.Conn) { io.Copy(io.Discard, nc) })
}

// Serve is a TCP server that runs f for each connection. It closes the connection afterwards, at
// the latest at the end of the test.
func Serve(tb testing.TB, f func(net.Conn)) int {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var (
		mu    sync.Mutex
		conns = map[net.Conn]struct{}{}
		over  bool
		work  sync.WaitGroup
	)
	work.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[nc] = struct{}{}
			if over {
				nc.Close()
			}
			mu.Unlock()
			work.Go(func() {
				f(nc)
				nc.Close()
				mu.Lock()
				delete(conns, nc)
				mu.Unlock()
			})
		}
	})
	tb.Cleanup(func() {
		ln.Close()
		mu.Lock()
		over = true
		for nc := range conns {
			nc.Close()
		}
		mu.Unlock()
		work.Wait()
	})
	return ln.Addr().(*net.TCPAddr).Port
}

// Unanswered is a port that neither accepts nor refuses connections: the queue of its listener has
// one place, which is taken.
func Unanswered(tb testing.TB) int {
	tb.Helper()
	fd, err := sockets.New(syscall.AF_INET, syscall.SOCK_STREAM)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { syscall.Close(fd) })
	port := bindLoopback(tb, fd)
	if err := syscall.Listen(fd, 0); err != nil {
		tb.Fatal(err)
	}
	filler, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { filler.Close() })
	// The kernel shows the length of a listener's queue as rx_queue (proc_pid_net(5)).
	full := fmt.Sprintf(" 0100007F:%04X 00000000:0000 0A 00000000:00000001 ", port)
	for range 100_000 {
		table, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			tb.Fatal(err)
		}
		if strings.Contains(string(table), full) {
			return port
		}
		time.Sleep(time.Millisecond)
	}
	tb.Fatal("the listener's queue does not fill")
	return 0
}

// FreePort is a port on which nobody listens, and which no other program gets by chance until the
// end of the test. A socket is bound to it and does not listen. Go sets SO_REUSEADDR and so can
// listen on the port (socket(7)). Until then connections are refused.
func FreePort(tb testing.TB) int {
	tb.Helper()
	fd, err := sockets.New(syscall.AF_INET, syscall.SOCK_STREAM)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR,
		1); err != nil {
		tb.Fatal(err)
	}
	return bindLoopback(tb, fd)
}

// bindLoopback binds a socket to any port of 127.0.0.1, and returns the port.
func bindLoopback(tb testing.TB, fd int) int {
	tb.Helper()
	if err := syscall.Bind(fd,
		&syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		tb.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		tb.Fatal(err)
	}
	return sa.(*syscall.SockaddrInet4).Port
}
