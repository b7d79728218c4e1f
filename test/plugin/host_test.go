package plugin

import (
	"strings"
	"testing"

	"tlsd/internal/testhost"
)

// null is an argument that the host turns into a NULL pointer.
var null = testhost.Null

// A host is a program of internal/testhost that has loaded the plugin, for one test. If the host
// ends, or does not answer within testkit.Patience, the test ends with a failure.
type host struct {
	*testhost.Host
	t *testing.T
}

type result = testhost.Result

type hostOptions struct {
	flavour *flavour
	wrapper []string // program and arguments before the host's, such as valgrind
	env     []string
}

// startHost starts a host with these environment variables, and with no other variable that leads
// to a tlsd. At the end of the test the host must exit without an error.
func startHost(t *testing.T, env ...string) *host {
	t.Helper()
	return startHostWith(t, hostOptions{env: env})
}

func startHostWith(t *testing.T, o hostOptions) *host {
	t.Helper()
	if o.flavour == nil {
		o.flavour = asan
	}
	h, err := testhost.Start(testhost.Options{
		Program: o.flavour.program(t, testhost.Source()),
		Library: o.flavour.library(t),
		Wrapper: o.wrapper,
		Env:     append(o.flavour.env[:len(o.flavour.env):len(o.flavour.env)], o.env...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.End(); err != nil {
			t.Error(err)
		}
	})
	return &host{h, t}
}

// A pending is a command that was sent to the host. Its method wait returns the result.
type pending struct {
	*testhost.Call
	t *testing.T
}

// send sends a command to the host, which carries it out in its main thread. Most commands call the
// C function of the same name. Backend, Version and PeerCertSubject call it twice, for the length
// and for the text, so tlsd gets two requests. Subject calls tls_PeerCertSubject once.
func (h *host) send(op string, args ...any) *pending {
	h.t.Helper()
	call, err := h.Send(op, args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return &pending{call, h.t}
}

// start begins a call in a thread of its own.
func (h *host) start(op string, args ...any) *pending {
	h.t.Helper()
	return h.send("&"+op, args...)
}

// call makes a call in the host's main thread, and waits for its result.
func (h *host) call(op string, args ...any) result {
	h.t.Helper()
	return h.send(op, args...).wait()
}

// child returns a pending that waits for the end of the forked child. The result is the child's
// exit status.
func (h *host) child() *pending { return &pending{h.Answer("child"), h.t} }

func (p *pending) wait() result {
	p.t.Helper()
	r, err := p.Wait()
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// gives checks a successful result.
func (p *pending) gives(n int64, text string) {
	p.t.Helper()
	if r := p.wait(); r.N != n || r.Text != text {
		p.t.Errorf("%s gives %d, %q; want %d, %q", p.Op, r.N, r.Text, n, text)
	}
}

// reads checks the data of a Read.
func (p *pending) reads(data string) {
	p.t.Helper()
	p.gives(int64(len(data)), data)
}

// fails checks that a call has failed. Its text must begin with start and have all parts.
func (p *pending) fails(start string, parts ...string) {
	p.t.Helper()
	r := p.wait()
	if r.N != -1 || !strings.HasPrefix(r.Text, start) {
		p.t.Errorf("%s gives %d, %q; want -1, %q…", p.Op, r.N, r.Text, start)
	}
	for _, part := range parts {
		if !strings.Contains(r.Text, part) {
			p.t.Errorf("%s fails with %q, which lacks %q", p.Op, r.Text, part)
		}
	}
}
