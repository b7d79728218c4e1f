package peers

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// A process is a program that carries one connection. It sends its standard input, and writes
// received data to its standard output. The process is killed at the end of the test, or when
// testkit.Patience has passed.
type process struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  io.ReadCloser
	done chan struct{} // closed when the process has ended

	mu     sync.Mutex // guards stderr
	stderr strings.Builder
}

func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{name: name, cmd: exec.Command(name, args...), done: make(chan struct{})}
	// The process gets no proxy, and no configuration of the user who runs the test.
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "HOME=/nonexistent"}
	p.cmd.Stderr = writerFunc(func(b []byte) (int, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.stderr.Write(b)
	})
	p.cmd.WaitDelay = time.Second
	outR, outW, err := os.Pipe()
	testkit.Must(t, err)
	p.out, p.cmd.Stdout = outR, outW
	p.in, err = p.cmd.StdinPipe()
	testkit.Must(t, err)
	testkit.Must(t, testd.Spawn(p.cmd, func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the result is in ProcessState
	}))
	outW.Close()
	timer := time.AfterFunc(testkit.Patience, func() { p.cmd.Process.Kill() })
	t.Cleanup(func() {
		timer.Stop()
		p.cmd.Process.Kill() // most have ended long ago
		<-p.done
		p.in.Close()
		p.out.Close()
		if t.Failed() {
			t.Logf("%s %q: %v\n%s", name, args, p.cmd.ProcessState, p.said())
		}
	})
	return p
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// said is the standard error of the process so far.
func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

func (p *process) Read(b []byte) (int, error)  { return p.out.Read(b) }
func (p *process) Write(b []byte) (int, error) { return p.in.Write(b) }
func (p *process) closeWrite() error           { return p.in.Close() }

// end ends the input, drops the rest of the output, and waits until the process has ended.
func (p *process) end() error {
	p.in.Close()
	go io.Copy(io.Discard, p.out)
	select {
	case <-p.done:
		return nil
	case <-time.After(testkit.Patience):
		return fmt.Errorf("%s has not ended within %v", p.name, testkit.Patience)
	}
}
