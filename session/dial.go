package session

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"tlsd/internal/policy"
)

// How a client connects to a host that has several addresses (RFC 8305). Attempts run side by side.
// The next attempt begins when an earlier one has failed, or when the last one has run for
// attemptDelay. The first success wins. The other attempts are ended, and their connections are
// closed, before race returns. The two families of addresses take turns.
//
// The look-up asks for both families, and waits for both answers.

const (
	// attemptDelay is the Connection Attempt Delay of RFC 8305.
	attemptDelay = 250 * time.Millisecond
	// maxAttempts is how many attempts may run at the same time.
	maxAttempts = 16
)

// lookUp returns the addresses of a host, the best first.
func (s *Session) lookUp(ctx context.Context, host policy.Host, port int) ([]netip.AddrPort, error) {
	if addr, ok := host.Addr(); ok {
		return []netip.AddrPort{netip.AddrPortFrom(addr, uint16(port))}, nil
	}
	names := s.resolver
	if names == nil {
		names = net.DefaultResolver
	}
	found, err := names.LookupNetIP(ctx, "ip", host.String())
	if err == nil && len(found) == 0 {
		err = &net.DNSError{Err: "no such host", Name: host.String(), IsNotFound: true}
	}
	if err != nil {
		return nil, err
	}
	list := make([]netip.AddrPort, len(found))
	for i, a := range found {
		list[i] = netip.AddrPortFrom(a.Unmap(), uint16(port))
	}
	return list, nil
}

// interleave makes the two families take turns. The family of the first address comes first. The
// order within each family stays.
func interleave(list []netip.AddrPort) []netip.AddrPort {
	var first, second []netip.AddrPort
	for _, a := range list {
		if a.Addr().Is4() == list[0].Addr().Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	var out []netip.AddrPort
	for i := range max(len(first), len(second)) {
		out = append(out, first[min(i, len(first)):min(i+1, len(first))]...)
		out = append(out, second[min(i, len(second)):min(i+1, len(second))]...)
	}
	return out
}

// An attempt tries one address. It ends soon after its context.
type attempt func(context.Context, netip.AddrPort) (net.Conn, error)

type attempted struct {
	index int // of the address in the list
	nc    net.Conn
	err   error
}

// race connects to the first address that answers. The channel of pause says when the next attempt
// may begin. The error is the error of the first address. If ctx has ended, it is the error of an
// attempt that ctx has ended.
func race(ctx context.Context, list []netip.AddrPort, pause func() <-chan time.Time, try attempt) (net.Conn, error) {
	if len(list) == 1 {
		return try(ctx, list[0])
	}
	own, end := context.WithCancel(ctx)
	defer end()
	results := make(chan attempted)
	started, running := 0, 0
	errs := make([]error, len(list))
	var winner net.Conn
	var late error // of an attempt that ctx has ended
	var next <-chan time.Time
	start := func() {
		index := started
		started++
		running++
		next = pause()
		go func() {
			nc, err := try(own, list[index])
			results <- attempted{index, nc, err}
		}()
	}
	start()
	for running > 0 {
		due := next
		if winner != nil || started == len(list) || running == maxAttempts || ctx.Err() != nil {
			due = nil
		}
		select {
		case <-due:
			start()
		case r := <-results:
			running--
			switch {
			case r.err == nil && winner == nil:
				winner = r.nc
				end()
			case r.err == nil:
				r.nc.Close()
			case winner == nil && ctx.Err() != nil:
				late = r.err
			case winner == nil:
				errs[r.index] = r.err
				if started < len(list) {
					start()
				}
			}
		}
	}
	switch {
	case winner != nil:
		return winner, nil
	case late != nil:
		return nil, late
	}
	return nil, errs[0]
}

// connectTo is the attempt over TCP.
func connectTo(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: func(network, address string, socket syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil // the net package reports the error
		}
		return beginConnect(network, to, socket)
	}}
	return d.DialContext(ctx, "tcp", a.String())
}

// beginConnect begins to connect a socket that the net package is about to connect. A second
// connect(2) is allowed. A peer on this machine has accepted by then, so the second call succeeds
// at once, and no goroutine has to wait. The error is the one that the second call would have.
func beginConnect(network string, a netip.AddrPort, socket syscall.RawConn) error {
	if a.Addr().Zone() != "" {
		return nil // the net package finds the zone's number
	}
	var to syscall.Sockaddr = &syscall.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if strings.HasSuffix(network, "4") {
		if !a.Addr().Is4() {
			return nil
		}
		to = &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	var err error
	if e := socket.Control(func(fd uintptr) { err = syscall.Connect(int(fd), to) }); e != nil {
		return e
	}
	switch err {
	case nil, syscall.EINPROGRESS, syscall.EALREADY, syscall.EINTR:
		return nil
	}
	return os.NewSyscallError("connect", err)
}
