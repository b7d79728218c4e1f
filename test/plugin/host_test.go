package plugin

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait of these tests. Nothing waits that long unless it hangs.
const patience = 60 * time.Second

// null is an argument that the host turns into a NULL pointer.
const null = `\N`

// A host is a running testdata/host.c.
type host struct {
	t     *testing.T
	pid   int
	in    io.WriteCloser
	mu    sync.Mutex
	tags  int
	waits map[string]chan result
	left  chan struct{} // closed when the host has ended and err is set
	err   error
}

type result struct {
	n    int64
	text string // Read's data, a getter's text, or LastError
}

type hostOptions struct {
	flavour *flavour
	wrapper []string // program and arguments before the host's, such as valgrind
	env     []string
}

// startHost starts a host with these settings of the environment, and nothing else
// that tells it where a tlsd is. It must end well before the test does.
func startHost(t *testing.T, env ...string) *host {
	t.Helper()
	return startHostWith(t, hostOptions{env: env})
}

func startHostWith(t *testing.T, o hostOptions) *host {
	t.Helper()
	if o.flavour == nil {
		o.flavour = asan
	}
	args := append(o.wrapper, o.flavour.program(t, "host"), o.flavour.library(t))
	cmd := exec.Command(args[0], args[1:]...)
	for _, s := range os.Environ() {
		if name, _, _ := strings.Cut(s, "="); !strings.HasPrefix(name, "TLSD_") && name != "XDG_RUNTIME_DIR" {
			cmd.Env = append(cmd.Env, s)
		}
	}
	cmd.Env = append(append(cmd.Env, "TLSD_AUTOSTART=0"), append(o.flavour.env, o.env...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, pid: cmd.Process.Pid, in: in, waits: map[string]chan result{}, left: make(chan struct{})}
	go func() {
		h.read(out)
		h.err = cmd.Wait()
		if h.err != nil {
			h.err = fmt.Errorf("host: %w\n%s", h.err, stderr.String())
		}
		close(h.left)
	}()
	t.Cleanup(func() {
		in.Close()
		select {
		case <-h.left:
		case <-time.After(patience):
			t.Error("the host does not end")
			cmd.Process.Kill()
			<-h.left
		}
		if h.err != nil {
			t.Error(h.err)
		}
	})
	return h
}

func (h *host) read(out io.Reader) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString(0)
		if err != nil {
			return
		}
		f := strings.SplitN(strings.TrimSuffix(line, "\x00"), "\t", 3)
		n, _ := strconv.ParseInt(f[1], 10, 64)
		h.waiting(f[0]) <- result{n, f[2]}
	}
}

// waiting returns where the answer with this tag goes.
func (h *host) waiting(tag string) chan result {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waits[tag] == nil {
		h.waits[tag] = make(chan result, 1)
	}
	return h.waits[tag]
}

// A pending is a command whose answer has not been waited for.
type pending struct {
	h   *host
	op  string
	tag string
}

func (h *host) send(op string, args ...any) *pending {
	h.t.Helper()
	h.mu.Lock()
	h.tags++
	tag := strconv.Itoa(h.tags)
	h.mu.Unlock()
	line := tag + "\t" + op
	for _, a := range args {
		line += "\t" + fmt.Sprint(a)
	}
	if _, err := io.WriteString(h.in, line+"\n"); err != nil {
		h.t.Fatalf("%s: the host has ended: %v", op, err)
	}
	return &pending{h, op, tag}
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

func (p *pending) wait() result {
	p.h.t.Helper()
	select {
	case r := <-p.h.waiting(p.tag):
		return r
	case <-p.h.left:
		select {
		case r := <-p.h.waiting(p.tag):
			return r
		default:
			p.h.t.Fatalf("%s: the host has ended", p.op)
		}
	case <-time.After(patience):
		p.h.t.Fatalf("%s: no result", p.op)
	}
	panic("not reached")
}

// gives checks a result that is a success.
func (p *pending) gives(n int64, text string) {
	p.h.t.Helper()
	if r := p.wait(); r.n != n || r.text != text {
		p.h.t.Errorf("%s gives %d, %q; want %d, %q", p.op, r.n, r.text, n, text)
	}
}

// reads checks the data that a Read has given.
func (p *pending) reads(data string) {
	p.h.t.Helper()
	p.gives(int64(len(data)), hex.EncodeToString([]byte(data)))
}

// fails checks that a call has failed with a text that has all these parts, the first at its start.
func (p *pending) fails(start string, parts ...string) {
	p.h.t.Helper()
	r := p.wait()
	if r.n != -1 || !strings.HasPrefix(r.text, start) {
		p.h.t.Errorf("%s gives %d, %q; want -1, %q…", p.op, r.n, r.text, start)
	}
	for _, part := range parts {
		if !strings.Contains(r.text, part) {
			p.h.t.Errorf("%s fails with %q, which lacks %q", p.op, r.text, part)
		}
	}
}

func hexOf(s string) string { return hex.EncodeToString([]byte(s)) }
