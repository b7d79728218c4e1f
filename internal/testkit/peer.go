package testkit

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tlsd/internal/sockets"
)

// These are peers for connections. Unless a comment says otherwise, they listen on 127.0.0.1, and
// return their port. All are gone at the end of the test.

// Echo is a TLS server that sends its input back, and answers close_notify with close_notify.
func Echo(tb testing.TB, cert tls.Certificate) int {
	tb.Helper()
	return ServeTLS(tb, &tls.Config{Certificates: []tls.Certificate{cert}},
		func(c *tls.Conn) { io.Copy(c, c) })
}

// ServeTLS is a TLS server that runs f for each connection whose handshake succeeds. It closes the
// connection afterwards, with close_notify.
func ServeTLS(tb testing.TB, cfg *tls.Config, f func(*tls.Conn)) int {
	tb.Helper()
	return Serve(tb, func(nc net.Conn) {
		c := tls.Server(nc, cfg)
		defer c.Close()
		if c.Handshake() == nil {
			f(c)
		}
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
	Must(tb, err)
	ServeOn(tb, ln, f)
	return ln.Addr().(*net.TCPAddr).Port
}

// ServeOn is Serve for a listener, which it closes at the end of the test.
func ServeOn(tb testing.TB, ln net.Listener, f func(net.Conn)) {
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
}

// Unanswered is a port that neither accepts nor refuses connections: the queue of its listener has
// one place, which is taken.
func Unanswered(tb testing.TB) int {
	tb.Helper()
	fd, err := sockets.New(syscall.AF_INET, syscall.SOCK_STREAM)
	Must(tb, err)
	tb.Cleanup(func() { syscall.Close(fd) })
	port := bindAny(tb, fd, [4]byte{127, 0, 0, 1})
	Must(tb, syscall.Listen(fd, 0))
	filler, err := net.Dial("tcp", Addr(port))
	Must(tb, err)
	tb.Cleanup(func() { filler.Close() })
	Until(tb, "the listener's queue is full", func() bool { return Backlog(tb, port) == 1 })
	return port
}

// Backlog is the number of connections that wait to be accepted, in the queue of a listener of
// 127.0.0.1. It needs Linux.
func Backlog(tb testing.TB, port int) (n int) {
	tb.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	Must(tb, err)
	// The kernel shows the length of a listener's queue as rx_queue (proc_pid_net(5)).
	_, row, ok := strings.Cut(string(table),
		fmt.Sprintf(" 0100007F:%04X 00000000:0000 0A 00000000:", port))
	if !ok {
		tb.Fatalf("nobody listens on port %d", port)
	}
	_, err = fmt.Sscanf(row, "%08X ", &n)
	Must(tb, err)
	return n
}

// Port is a port on which nobody listens, and which no other program gets by chance until the
// end of the test. A socket is bound to it and does not listen, so connections are refused. A Go
// program can still listen on the port, because Go sets SO_REUSEADDR (socket(7)).
//
// The socket is bound to all addresses of IPv4. Otherwise another test could get the port for a
// client at 127.0.0.2, and a server that listens on all addresses would fail.
func Port(tb testing.TB) int {
	tb.Helper()
	fd, err := sockets.New(syscall.AF_INET, syscall.SOCK_STREAM)
	Must(tb, err)
	tb.Cleanup(func() { syscall.Close(fd) })
	Must(tb, syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
	return bindAny(tb, fd, [4]byte{})
}

// Addr is a port of 127.0.0.1, as net.Dial wants it.
func Addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// bindAny binds a socket to any port of an address, and returns the port.
func bindAny(tb testing.TB, fd int, addr [4]byte) int {
	tb.Helper()
	Must(tb, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: addr}))
	sa, err := syscall.Getsockname(fd)
	Must(tb, err)
	return sa.(*syscall.SockaddrInet4).Port
}
