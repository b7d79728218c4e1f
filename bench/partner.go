package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
)

// The program bare (src/bare.c) exchanges bytes over a pair of sockets, without TLS. It starts this
// program with the argument "partner". The new process, the partner, has the other socket as its
// standard input. It waits for data in the netpoller, as tlsd's workers do, or blocks in read(2).

const partnerArg = "partner"

// partnerCommand returns the command that starts a partner. The string how is netpoll or blocking,
// and kind is pingpong or write.
func partnerCommand(how, kind string, size int) ([]string, error) {
	exe, err := os.Executable()
	return []string{exe, partnerArg, how, kind, strconv.Itoa(size)}, err
}

func runPartner(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("a partner has 3 arguments, and not %q", args)
	}
	size, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	var c io.ReadWriter = blocking(0)
	if args[0] == "netpoll" {
		if c, err = net.FileConn(os.Stdin); err != nil {
			return err
		}
	}
	done := make(chan error, 1)
	// Not in this goroutine: init has locked it to the main thread, and a switch to that thread
	// costs time.
	go func() { done <- serveBare(c, args[1] == "pingpong", size) }()
	return <-done
}

// serveBare sends each message back (pingpong), or counts bytes until the input ends and then sends
// their number.
func serveBare(c io.ReadWriter, pingpong bool, size int) error {
	if pingpong {
		for p := make([]byte, size); ; {
			if _, err := io.ReadFull(c, p); err != nil {
				return nil // bare has ended
			}
			if _, err := c.Write(p); err != nil {
				return err
			}
		}
	}
	var all uint64
	for p := make([]byte, 128<<10); ; {
		n, err := c.Read(p)
		all += uint64(n)
		if err != nil {
			_, err = c.Write(binary.NativeEndian.AppendUint64(nil, all))
			return err
		}
	}
}

// blocking is a descriptor that the netpoller does not know: Read and Write block the thread.
type blocking int

func (fd blocking) Read(p []byte) (int, error) {
	n, err := syscall.Read(int(fd), p)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), err
}

func (fd blocking) Write(p []byte) (int, error) { return syscall.Write(int(fd), p) }
