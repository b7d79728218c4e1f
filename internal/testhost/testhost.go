// Package testhost runs a host for the plugin: a program in C that loads the plugin as an
// interpreter would (src/host.c). A test sends the host one command after another. Several calls
// may wait at the same time, each in a thread of the host. Data may have any bytes.
//
//	h, err := testhost.Start(testhost.Options{Program: program, Library: plugin})
//	call, err := h.Send("&Read", handle, 4096) // &: in a thread of its own
//	r, err := call.Wait()
//	err = h.End()
//
// # Promises
//
//   - A host does not get the tester's settings that name a tlsd, and the plugin starts no tlsd.
//     Options.Env can change both.
//   - On Linux, a host does not outlive the test process, however the test process ends.
//   - All methods are safe for concurrent use. Wait and End have a timeout.
package testhost

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// Null is an argument that the host turns into a NULL pointer.
var Null = null{}

type null struct{}

// Source is the path of the host's source. To compile it, the compiler needs the folder of the
// plugin's header, -ldl and -pthread.
func Source() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "src", "host.c")
}

// Options say what to run.
type Options struct {
	Program string   // built from Source
	Library string   // the plugin
	Wrapper []string // a command that runs the host, such as valgrind
	Env     []string // NAME=value, added to the environment
}

// A Host is a running host program. Call End when it is no longer needed.
type Host struct {
	PID  int
	Left chan struct{} // closed when the host has ended

	in     io.WriteCloser
	err    error // how the host has ended; set before Left is closed
	stderr strings.Builder

	mu    sync.Mutex // guards all below, and keeps the commands in their order
	tags  int
	waits map[string]chan Result
}

// A Result is the result of a call. N is the number that the function returned. Text is the data of
// Read, the text of a getter, or after a failure the text of tls_LastError.
type Result struct {
	N    int64
	Text string
}

// Start starts a host.
func Start(o Options) (*Host, error) {
	args := append(append([]string{}, o.Wrapper...), o.Program, o.Library)
	cmd := exec.Command(args[0], args[1:]...)
	for _, s := range os.Environ() {
		if name, _, _ := strings.Cut(s, "="); !strings.HasPrefix(name, "TLSD_") &&
			name != "XDG_RUNTIME_DIR" {
			cmd.Env = append(cmd.Env, s)
		}
	}
	cmd.Env = append(append(cmd.Env, "TLSD_AUTOSTART=0"), o.Env...)
	h := &Host{Left: make(chan struct{}), waits: map[string]chan Result{}}
	cmd.Stderr = &h.stderr
	var err error
	if h.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	err = testd.Spawn(cmd, func() {
		defer close(h.Left)
		err := h.read(out)
		if err = errors.Join(err, cmd.Wait()); err != nil {
			h.err = fmt.Errorf("host: %w\n%s", err, h.stderr.String())
		}
	})
	if err != nil {
		return nil, err
	}
	h.PID = cmd.Process.Pid
	return h, nil
}

// End ends the host, unless the host has ended, and waits for the end. It returns nil if the host
// exited with 0. A host that does not end within testkit.Patience is killed.
func (h *Host) End() error {
	h.in.Close()
	select {
	case <-h.Left:
	case <-time.After(testkit.Patience):
		if p, err := os.FindProcess(h.PID); err == nil {
			p.Kill()
		}
		<-h.Left
		return errors.Join(errors.New("the host does not end"), h.err)
	}
	return h.err
}

// read gives each answer of the host to the call that waits for it, until the output ends.
func (h *Host) read(out io.Reader) error {
	in := bufio.NewReaderSize(out, 1<<17)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil // the exit status says why the output has ended
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 3 {
			io.Copy(io.Discard, in)
			return fmt.Errorf("answers with %q", line)
		}
		n, _ := strconv.ParseInt(f[1], 10, 64)
		size, _ := strconv.Atoi(f[2])
		text := make([]byte, size)
		if _, err := io.ReadFull(in, text); err != nil {
			return nil
		}
		h.waiting(f[0]) <- Result{n, string(text)}
	}
}

// waiting returns the Go channel for the answer with this tag.
func (h *Host) waiting(tag string) chan Result {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waits[tag] == nil {
		h.waits[tag] = make(chan Result, 1)
	}
	return h.waits[tag]
}

// A Call is a command that has been sent.
type Call struct {
	Op  string
	h   *Host
	tag string
}

// Send sends a command, and does not wait for the answer. op is the name of a function of the
// plugin without "tls_", or a command of the host (src/host.c). With & before the name, the
// function runs in a new thread of the host. An argument is a number, a text, Null, or []byte for
// data.
func (h *Host) Send(op string, args ...any) (*Call, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tags++
	c := &Call{op, h, strconv.Itoa(h.tags)}
	line := []byte(c.tag + "\t" + op)
	var data []byte
	for _, a := range args {
		line = append(line, '\t')
		switch a := a.(type) {
		case null:
			line = append(line, `\N`...)
		case []byte:
			data = a
			line = strconv.AppendInt(line, int64(len(a)), 10)
		default:
			line = append(line, escape.Replace(fmt.Sprint(a))...)
		}
	}
	if _, err := h.in.Write(append(append(line, '\n'), data...)); err != nil {
		return nil, fmt.Errorf("%s: the host has ended: %w", op, err)
	}
	return c, nil
}

// escape turns a text into a field of a line: it writes a tab as \t, a line feed as \n, a backslash
// as \\.
var escape = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`)

// Answer returns a Call that waits for an answer that no command asked for. The parameter tag names
// the answer: "child" says that a forked child has ended.
func (h *Host) Answer(tag string) *Call { return &Call{tag, h, tag} }

// Result returns the Go channel that gets the result, once.
func (c *Call) Result() chan Result { return c.h.waiting(c.tag) }

// Wait waits for the result. It fails if the host ends without a result, or after testkit.Patience.
func (c *Call) Wait() (Result, error) {
	select {
	case r := <-c.Result():
		c.h.forget(c.tag)
		return r, nil
	case <-c.h.Left:
		select {
		case r := <-c.Result():
			return r, nil
		default:
			return Result{}, fmt.Errorf("%s: the host has ended: %v", c.Op, c.h.err)
		}
	case <-time.After(testkit.Patience):
		return Result{}, fmt.Errorf("%s: no result", c.Op)
	}
}

func (h *Host) forget(tag string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.waits, tag)
}
