package session_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/kind"
	"tlsd/internal/sockets"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// addresses returns n addresses, from 192.0.2.1 on, with port 443.
func addresses(n int) (list []netip.AddrPort) {
	for i := range n {
		list = append(list, netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:443", i+1)))
	}
	return list
}

// A track runs session.Race, which connects to one of several addresses. Race begins an attempt for
// each address, with a pause in between, and returns the first connection. The test decides when
// and how each attempt ends, and when each pause ends.
type track struct {
	t       *testing.T
	tick    chan time.Time // an element ends a pause
	began   chan netip.AddrPort
	verdict map[netip.AddrPort]chan error // the result of each attempt
	conns   chan *endConn

	mu      sync.Mutex       // guards the rest
	over    []netip.AddrPort // attempts that were ended by their context
	running int
	peak    int // the most attempts at the same time
}

// endConn is a connection that only remembers its address and whether it is closed.
type endConn struct {
	net.Conn
	to     netip.AddrPort
	closed bool
}

func (c *endConn) Close() error { c.closed = true; return nil }

func newTrack(t *testing.T, list []netip.AddrPort) *track {
	k := &track{t: t, tick: make(chan time.Time), began: make(chan netip.AddrPort),
		verdict: map[netip.AddrPort]chan error{}, conns: make(chan *endConn, 100)}
	for _, a := range list {
		k.verdict[a] = make(chan error, 1)
	}
	return k
}

func (k *track) pause() <-chan time.Time { return k.tick }

func (k *track) try(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	k.ran(1)
	defer k.ran(-1)
	k.began <- a
	select {
	case err := <-k.verdict[a]:
		if err != nil {
			return nil, err
		}
		c := &endConn{to: a}
		k.conns <- c
		return c, nil
	case <-ctx.Done():
		k.mu.Lock()
		defer k.mu.Unlock()
		k.over = append(k.over, a)
		return nil, ctx.Err()
	}
}

// ran counts an attempt that begins (by is 1) or ends (by is -1).
func (k *track) ran(by int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.running += by
	k.peak = max(k.peak, k.running)
}

// The method begins waits until an attempt begins, and checks its address.
func (k *track) begins(want netip.AddrPort) {
	k.t.Helper()
	select {
	case a := <-k.began:
		if a != want {
			k.t.Fatalf("the attempt of %v has begun, want %v", a, want)
		}
	case <-time.After(testkit.Patience):
		k.t.Fatalf("no attempt of %v has begun", want)
	}
}

// The method ticks ends a pause.
func (k *track) ticks() {
	k.t.Helper()
	select {
	case k.tick <- time.Time{}:
	case <-time.After(testkit.Patience):
		k.t.Fatal("Race does not wait for the end of a pause, want a pause before the " +
			"next attempt")
	}
}

type finish struct {
	nc  net.Conn
	err error
}

func (k *track) run(ctx context.Context, list []netip.AddrPort) <-chan finish {
	done := make(chan finish, 1)
	go func() {
		nc, err := session.Race(ctx, list, k.pause, k.try)
		done <- finish{nc, err}
	}()
	return done
}

func TestTheNextAddressIsTriedWhileTheFirstIsSilent(t *testing.T) {
	t.Parallel()
	list := addresses(3)
	k := newTrack(t, list)
	done := k.run(t.Context(), list)
	k.begins(list[0])
	k.ticks()
	k.begins(list[1])
	k.ticks()
	k.begins(list[2])
	k.verdict[list[2]] <- nil
	f := <-done
	if f.err != nil || f.nc.(*endConn).to != list[2] || f.nc.(*endConn).closed {
		t.Fatalf("Race returns %+v, want an open connection to the third address", f)
	}
	// Race has returned only after the other attempts have ended.
	if slices.SortFunc(k.over, netip.AddrPort.Compare); !slices.Equal(k.over, list[:2]) {
		t.Errorf("the attempts of %v were ended, want those of the first two addresses",
			k.over)
	}
}

func TestAFailureStartsTheNextAttemptAtOnce(t *testing.T) {
	t.Parallel()
	list := addresses(3)
	k := newTrack(t, list)
	done := k.run(t.Context(), list)
	first := errors.New("the first one's")
	for i, err := range []error{first, errors.New("the second one's"),
		errors.New("the third one's")} {
		k.begins(list[i])
		k.verdict[list[i]] <- err
	}
	if f := <-done; f.err != first {
		t.Errorf("Race returns the error %v, want the error of the first address", f.err)
	}
}

func TestAConnectionThatComesTooLateIsClosed(t *testing.T) {
	t.Parallel()
	list := addresses(2)
	k := newTrack(t, list)
	// deaf is an attempt that ignores the end of its context.
	deaf := func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
		return k.try(context.WithoutCancel(ctx), a)
	}
	done := make(chan finish, 1)
	go func() {
		nc, err := session.Race(t.Context(), list, k.pause, deaf)
		done <- finish{nc, err}
	}()
	k.begins(list[0])
	k.ticks()
	k.begins(list[1])
	k.verdict[list[1]] <- nil
	winner := <-k.conns
	k.verdict[list[0]] <- nil
	if f := <-done; f.err != nil || f.nc.(*endConn).closed {
		t.Fatalf("Race returns %+v, want an open connection", f)
	}
	late := <-k.conns
	if winner.closed == late.closed {
		t.Errorf("the first connection is closed: %v; the late connection is closed: "+
			"%v; want exactly one of them closed", winner.closed, late.closed)
	}
}

func TestTheEndOfAContextEndsAllAttempts(t *testing.T) {
	t.Parallel()
	list := addresses(3)
	k := newTrack(t, list)
	ctx, cancel := context.WithCancel(t.Context())
	done := k.run(ctx, list)
	k.begins(list[0])
	k.verdict[list[0]] <- errors.New("refused")
	k.begins(list[1])
	cancel()
	if f := <-done; !errors.Is(f.err, context.Canceled) || !slices.Equal(k.over, list[1:2]) {
		t.Errorf("Race returns the error %v, want context.Canceled; the context has "+
			"ended the attempts of %v, want only the second address", f.err, k.over)
	}
}

func TestAttemptsAtTheSameTimeAreBounded(t *testing.T) {
	t.Parallel()
	list := addresses(session.MostAttempts + 2)
	k := newTrack(t, list)
	done := k.run(t.Context(), list)
	k.begins(list[0])
	for i := range session.MostAttempts - 1 {
		k.ticks()
		k.begins(list[i+1])
	}
	close(k.tick) // from now on each pause ends at once
	for i := range 2 {
		k.verdict[list[3+i]] <- errors.New("refused")
		k.begins(list[session.MostAttempts+i]) // because another attempt has ended
	}
	k.verdict[list[0]] <- nil
	if f := <-done; f.err != nil {
		t.Error(f.err)
	}
	if k.peak != session.MostAttempts {
		t.Errorf("%d attempts ran at the same time, want %d", k.peak, session.MostAttempts)
	}
}

func TestFamiliesTakeTurns(t *testing.T) {
	t.Parallel()
	read := func(texts ...string) (list []netip.AddrPort) {
		for _, text := range texts {
			list = append(list, netip.AddrPortFrom(netip.MustParseAddr(text), 1))
		}
		return list
	}
	for _, c := range [][2][]netip.AddrPort{
		{read("::1", "::2", "::3", "192.0.2.1", "192.0.2.2"),
			read("::1", "192.0.2.1", "::2", "192.0.2.2", "::3")},
		{read("192.0.2.1", "::1", "::2"), read("192.0.2.1", "::1", "::2")},
		{read("192.0.2.1", "192.0.2.2"), read("192.0.2.1", "192.0.2.2")},
	} {
		if got := session.Interleave(c[0]); !slices.Equal(got, c[1]) {
			t.Errorf("%v becomes %v, want %v", c[0], got, c[1])
		}
	}
}

// swallow makes a loopback address where a connect gets no answer: the backlog of the listener is
// full, so the system drops further connections. It returns false if another program has the
// address.
func swallow(t *testing.T, addr netip.AddrPort) bool {
	t.Helper()
	fd, err := sockets.New(unix.AF_INET, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())})
	if err != nil {
		return false
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	full, err := net.Dial("tcp", addr.String()) // this connection fills the backlog
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { full.Close() })
	return true
}

func TestAddressesThatSwallowConnectionsDoNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	silent := []string{"127.0.0.2", "127.0.0.3"}
	port := 0
	testkit.Until(t, "a port that is free at all addresses", func() bool {
		port = r.echo()
		for _, a := range silent {
			if !swallow(t, netip.AddrPortFrom(netip.MustParseAddr(a), uint16(port))) {
				return false
			}
		}
		return true
	})
	resolver, _ := dns(t, append(silent, "127.0.0.1")...)
	r.SetNames(resolver)
	attempts := 0 // counts the calls of the pause function: one for each attempt
	over := make(chan time.Time)
	close(over)
	// attempts needs no lock, because only the goroutine of the call changes it.
	r.SetPause(func() <-chan time.Time { attempts++; return over })
	h := r.handle(r.NewClient("x.test", port))
	if got, want := r.fact(h, "peer-address"), fmt.Sprintf("127.0.0.1:%d", port); got != want {
		t.Errorf("connected to %s, want %s", got, want)
	}
	if attempts != 3 {
		t.Errorf("%d attempts began, want 3", attempts)
	}

	// If no address answers, the timeout ends the call.
	only, _ := dns(t, silent...)
	other := newRig(t, timeouts(session.Timeouts{Connect: moment}))
	other.SetNames(only)
	other.fails(other.NewClient("x.test", port), kind.Timeout)
}
