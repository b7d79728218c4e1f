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

// If a host has several addresses, NewClient connects to it as in RFC 8305. Attempts run side by
// side. The next attempt begins when an attempt has failed, or attemptDelay after the start of the
// previous attempt. The first success wins. Before the function race returns, it ends the other
// attempts and closes their connections. IPv4 and IPv6 addresses take turns.
//
// The look-up asks for addresses of both families, and waits for both answers.

const (
	// attemptDelay is the Connection Attempt Delay of RFC 8305.
	attemptDelay = 250 * time.Millisecond
	// maxAttempts is how many attempts may run at the same time.
	maxAttempts = 16
)

// lookUp returns the addresses of a host, in the order of the resolver: the best first.
func (s *Session) lookUp(ctx context.Context, host policy.Host, port int) (
	[]netip.AddrPort, error) {
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

// interleave makes the two families take turns. The family of the first address comes first. Each
// family keeps its order.
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

// An attempt connects to one address. It returns soon after its context has ended.
type attempt func(context.Context, netip.AddrPort) (net.Conn, error)

// attempts are the attempts of one race. Only the goroutine of the race changes the fields.
type attempts struct {
	list    []netip.AddrPort
	try     attempt
	pause   func() <-chan time.Time // see the function race
	ctx     context.Context         // the context of all attempts
	end     context.CancelFunc      // ends ctx
	results chan attempted

	started, running int
	next             <-chan time.Time // has a value when the next attempt may begin

	winner net.Conn
	late   error   // the error of an attempt that failed after race's parameter ctx had ended
	errs   []error // the other errors, by the index of the address
}

type attempted struct {
	index int // of the address in the list
	nc    net.Conn
	err   error
}

// race returns the first connection that succeeds. The function pause is called at the start of
// each attempt, and returns a Go channel, which gets a value when the next attempt may begin. If
// all attempts fail, race returns the error of the first address. But if an attempt has failed
// after the end of ctx, race returns the error of this attempt.
func race(ctx context.Context, list []netip.AddrPort, pause func() <-chan time.Time,
	try attempt) (net.Conn, error) {
	if len(list) == 1 {
		return try(ctx, list[0])
	}
	a := &attempts{list: list, try: try, pause: pause, results: make(chan attempted),
		errs: make([]error, len(list))}
	a.ctx, a.end = context.WithCancel(ctx)
	defer a.end()
	a.start()
	for a.running > 0 {
		due := a.next
		if a.winner != nil || ctx.Err() != nil || a.started == len(list) ||
			a.running == maxAttempts {
			due = nil
		}
		select {
		case <-due:
			a.start()
		case r := <-a.results:
			a.take(ctx, r)
		}
	}
	switch {
	case a.winner != nil:
		return a.winner, nil
	case a.late != nil:
		return nil, a.late
	}
	return nil, a.errs[0]
}

// start begins the next attempt.
func (a *attempts) start() {
	index := a.started
	a.started++
	a.running++
	a.next = a.pause()
	go func() {
		nc, err := a.try(a.ctx, a.list[index])
		a.results <- attempted{index, nc, err}
	}()
}

// take takes the result of an attempt. ctx is the context of the race.
func (a *attempts) take(ctx context.Context, r attempted) {
	a.running--
	switch {
	case r.err == nil && a.winner == nil:
		a.winner = r.nc
		a.end()
	case r.err == nil:
		r.nc.Close()
	case a.winner != nil: // the attempt has lost the race
	case ctx.Err() != nil:
		a.late = r.err
	default:
		a.errs[r.index] = r.err
		if a.started < len(a.list) {
			a.start()
		}
	}
}

// connectTo is the attempt that NewClient uses: it connects over TCP.
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

// beginConnect calls connect(2) on a socket before the net package does. A second connect(2) on the
// same socket is allowed. If the peer is on this machine, the first call completes the connection.
// So the call of the net package succeeds at once, and no goroutine has to wait for the netpoller.
// If the first call fails, its error is the result, and the net package makes no call.
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
