package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process is a program that the benchmark has started and will end.
type process struct {
	cmd   *exec.Cmd
	log   string // file with its stderr
	stdin io.Closer
	gone  chan struct{} // closed when the program has ended
}

// launch starts a program that runs until stop, and at most as long as the benchmark (see init in
// main.go). Its standard output goes to the file out, or to the log if out is nil. It gets the
// files in extra as its descriptors from 3 on.
func launch(dir, name string, out *os.File, extra []*os.File, argv ...string) (*process, error) {
	p := &process{log: filepath.Join(dir, name+".log"), gone: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr, p.cmd.ExtraFiles = dir, log, log, extra
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if out != nil {
		p.cmd.Stdout = out
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { defer close(p.gone); p.cmd.Wait() }()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// trouble returns the end of the process's log, at most 2,000 bytes, for the text of an error.
func (p *process) trouble() string {
	text, _ := os.ReadFile(p.log)
	if text = bytes.TrimSpace(text); len(text) > 2000 {
		text = text[len(text)-2000:]
	}
	return string(text)
}

// stop ends the process and its descendants.
func (p *process) stop() {
	tree := family(p.pid())
	p.stdin.Close()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.gone:
	case <-time.After(3 * time.Second):
		p.cmd.Process.Kill()
		<-p.gone
	}
	for pid := range tree {
		if pid != p.pid() && name(pid) == tree[pid].name {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// usage has the CPU time that a process has used so far, and the memory that it uses now.
type usage struct {
	name string
	cpu  time.Duration // user and system, all threads
	rss  int64         // resident now, bytes
}

// family returns a process and all its descendants.
func family(root int) map[int]usage {
	children := map[int][]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if parent := parent(pid); parent > 0 {
				children[parent] = append(children[parent], pid)
			}
		}
	}
	found := map[int]usage{}
	for todo := []int{root}; len(todo) > 0; todo = todo[1:] {
		if u, err := usageOf(todo[0]); err == nil {
			found[todo[0]] = u
		}
		todo = append(todo, children[todo[0]]...)
	}
	return found
}

// parent returns the pid of a process's parent, or 0 if there is no such process. It reads
// /proc/PID/stat: "pid (name) state ppid …" (proc(5)).
func parent(pid int) int {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(fields[1])
	return n
}

func name(pid int) string {
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return string(bytes.TrimSpace(comm))
}

func usageOf(pid int) (usage, error) {
	// The clock id of another process's CPU time, as clock_getcpuclockid(3) makes it.
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
		return usage{}, err
	}
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return usage{}, err
	}
	u := usage{name: name(pid), cpu: time.Duration(t.Nano())}
	if fields := strings.Fields(string(statm)); len(fields) > 1 {
		pages, _ := strconv.ParseInt(fields[1], 10, 64)
		u.rss = pages * int64(os.Getpagesize())
	}
	return u, nil
}

// settle waits until a family of processes has used nearly no CPU time in several pauses in a row.
// So work that tlsd does by itself, such as the start of a spare worker, is not in the next
// measurement.
func settle(ctx context.Context, root int) (map[int]usage, error) {
	const (
		pause = 4 * time.Millisecond
		quiet = 200 * time.Microsecond // the limit of CPU time in a calm pause
		calm  = 4                      // calm pauses in a row
		bound = 30 * time.Second       // a thousand workers may have to end
	)
	last := family(root)
	for n, end := 0, time.Now().Add(bound); n < calm; {
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
		now := family(root)
		if growth(last, now) < quiet && len(now) == len(last) {
			n++
		} else {
			n = 0
		}
		last = now
		if time.Now().After(end) {
			return nil, errors.New("the processes did not come to rest")
		}
	}
	return last, nil
}

// stable waits until no process of a family has started or ended in several pauses in a row.
func stable(ctx context.Context, root int) (map[int]usage, error) {
	const (
		pause = 100 * time.Millisecond
		calm  = 5 // pauses in a row without a start or an end
		bound = 30 * time.Second
	)
	last := family(root)
	for n, end := 0, time.Now().Add(bound); n < calm; n++ {
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
		now := family(root)
		if len(now) != len(last) {
			n = 0
		}
		last = now
		if time.Now().After(end) {
			return nil, fmt.Errorf("processes still start or end after %v", bound)
		}
	}
	return last, nil
}

// idleLoad returns the CPU time, in seconds, that a family uses in a second without calls.
func idleLoad(ctx context.Context, root int) (float64, error) {
	before, begun := family(root), time.Now()
	if err := sleep(ctx, time.Second); err != nil {
		return 0, err
	}
	after := family(root)
	return growth(before, after).Seconds() / time.Since(begun).Seconds(), nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// growth returns the CPU time that a family used between two readings.
func growth(before, after map[int]usage) time.Duration {
	var sum time.Duration
	for pid, u := range after {
		sum += u.cpu - before[pid].cpu
	}
	return sum
}

// busiest compares two readings of a family, and returns the pid of the process that used most CPU
// time between them. A process that is not in both readings does not count.
func busiest(before, after map[int]usage) int {
	best, most := 0, time.Duration(-1)
	for pid, u := range after {
		if b, ok := before[pid]; ok && u.cpu-b.cpu > most {
			best, most = pid, u.cpu-b.cpu
		}
	}
	return best
}

// memory is the memory of processes, in bytes. If n processes share a page, pss has an n-th of it
// for each of them. dirty has only pages that no other process shares, and that were changed.
type memory struct{ pss, dirty int64 }

// justOne(pid, family) returns a family that consists of the process pid and nothing else.
func justOne(pid int, family map[int]usage) map[int]usage { return map[int]usage{pid: family[pid]} }

// kernelMemory returns the memory that the kernel uses for itself on the whole machine, in bytes:
// slabs, stacks and page tables (proc(5), /proc/meminfo). The sockets of all processes are in it,
// but only a part of the sockets' buffers.
func kernelMemory() int64 {
	text, _ := os.ReadFile("/proc/meminfo")
	var sum int64
	for _, line := range strings.Split(string(text), "\n") {
		switch name, value, _ := strings.Cut(line, ":"); name {
		case "Slab", "KernelStack", "PageTables":
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")),
				10, 64)
			sum += n << 10
		}
	}
	return sum
}

// weigh adds up the memory of processes (proc(5), /proc/PID/smaps_rollup). Processes that have
// ended are left out.
func weigh(processes map[int]usage) (memory, error) {
	var sum memory
	for pid := range processes {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if errors.Is(err, fs.ErrPermission) {
			return sum, fmt.Errorf("only root may look at the memory of tlsd's "+
				"workers: %w", err)
		}
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(text), "\n") {
			name, value, _ := strings.Cut(line, ":")
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")),
				10, 64)
			switch name {
			case "Pss":
				sum.pss += n << 10
			case "Private_Dirty":
				sum.dirty += n << 10
			}
		}
	}
	return sum, nil
}
