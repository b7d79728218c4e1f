package session_test

import (
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tlsd/internal/kind"
	"tlsd/internal/testkit"
	"tlsd/session"
)

// listener makes a context that listens on a free port.
func (r *rig) listener(options ...string) (ctx session.Handle, port int) {
	r.t.Helper()
	ctx = r.server()
	for i := 0; i < len(options); i += 2 {
		r.ok(r.SetOption(ctx, options[i], options[i+1]))
	}
	return ctx, r.ok(r.Listen(ctx, "127.0.0.1", 0)).(int)
}

func TestAContextListensInSeveralPlaces(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	ctx := r.server()
	r.fails(r.Accept(ctx, "", 0), kind.State)
	r.fails(r.Accept(ctx, "127.0.0.1", 0), kind.Params)
	r.fails(r.Accept(ctx, "", 1), kind.Params)
	one := r.ok(r.Listen(ctx, "127.0.0.1", 0)).(int)
	// The Accept also gets clients of an address that is added later.
	waiting := r.start(r.Accept(ctx, "", 0))
	two := r.ok(r.Listen(ctx, "127.0.0.1", 0)).(int)
	if again := r.ok(r.Listen(ctx, "127.0.0.1", two)).(int); again != two {
		t.Errorf("listening again gives port %d, want %d", again, two)
	}
	if one == two {
		t.Errorf("listening on a second free port gives port %d again", two)
	}
	want := []string{testkit.Addr(one), testkit.Addr(two)}
	got := strings.Split(r.fact(ctx, "address"), ",")
	slices.Sort(want) // the order has no meaning
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the addresses of the context are %q, want %q", got, want)
	}
	r.dial(two)
	waiting.ok()
	waiting = r.start(r.Accept(ctx, "", 0))
	r.dial(one)
	waiting.ok()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r.fails(r.Listen(ctx, "127.0.0.1", taken.Addr().(*net.TCPAddr).Port), kind.Connect)
}

// With the option failed-handshakes=skip, clients whose handshake fails do not end an Accept.
func TestFailedHandshakesThatAreSkippedDoNotEndAnAccept(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	ctx, port := r.listener("failed-handshakes", "skip")
	waiting := r.start(r.Accept(ctx, "", 0))
	for _, says := range []string{"", "GET / HTTP/1.0\r\n\r\n", "\x16\x03\x01"} {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, says)
		c.Close()
	}
	r.dial(port)
	waiting.ok()
}
