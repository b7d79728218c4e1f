package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The contestants.
const (
	inProcess  = "in-process"
	ours       = "tlsd"
	socketpair = "socketpair"

	// C programs between the client and the sink.
	oneRelay  = "one relay"
	twoRelays = "two relays"
)

var proxyNames = []string{"stunnel", "haproxy", "socat"}

// An outcome has the measurements of one program, and those of the processes that worked for it.
type outcome struct {
	units, seconds float64
	extra          map[string]float64

	client, helper, sink time.Duration // CPU time
	// growth of the resident memory of the process that has the connections, in bytes
	memory int64
	// growth of the kernel's own memory on the machine, in bytes
	kernel int64
	// growth of the memory of task.helper with its descendants; only if task.weigh
	weight memory
	// growth of the memory of task.helper alone; only if task.weigh
	parent memory
	// seconds of CPU time that task.helper and its descendants use in a second without calls,
	// after the work; only if task.weigh
	idle float64
}

// measureTimeout is the limit of one measurement.
const measureTimeout = 2 * time.Minute

// A task is the work of one of the C programs (see src/measure.h).
type task struct {
	program string
	args    []string
	env     []string // in addition to the environment of all clients
	helper  *process // works for the program, with its descendants; nil: none
	weigh   bool     // measure the helper's memory, which takes a while
	place   string   // the CPUs for all processes: see placement; "": the kernel chooses
}

// measure runs a task in its program.
func (a *arena) measure(ctx context.Context, t task) (*outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(a.dir, t.program), t.args...)
	cmd.Env = append(a.env(), t.env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = 2 * time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(out)
	o, err := a.runTask(ctx, t, cmd.Process.Pid, lines, func() error {
		_, err := in.Write([]byte("\n"))
		return err
	})
	if err != nil {
		in.Close() // then the program exits
	}
	if exit := cmd.Wait(); exit != nil {
		if ctx.Err() != nil {
			exit = ctx.Err()
		}
		if text := bytes.TrimSpace(stderr.Bytes()); len(text) > 0 {
			exit = fmt.Errorf("%w: %s", exit, text)
		}
		if err != nil {
			exit = fmt.Errorf("%w; %w", err, exit)
		}
		return nil, exit
	}
	return o, err
}

// runTask lets the program do the task, and measures the processes that take part. The function
// goOn sends the program the line for which it waits (see src/measure.h).
func (a *arena) runTask(ctx context.Context, t task, client int, lines *bufio.Reader,
	goOn func() error) (*outcome, error) {
	line, err := lines.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the program must say that it is ready: it has said %q: %w",
			line, err)
	}
	if line != "ready\n" {
		return nil, fmt.Errorf(`the program must say "ready": it has said %q`, line)
	}
	helpers, weight, parent := map[int]usage{}, memory{}, memory{}
	if t.helper != nil {
		if helpers, err = settle(ctx, t.helper.pid()); err != nil {
			return nil, err
		}
	}
	if t.weigh {
		if weight, err = weigh(helpers); err != nil {
			return nil, err
		}
		if parent, err = weigh(justOne(t.helper.pid(), helpers)); err != nil {
			return nil, err
		}
	}
	clients, sinks := family(client), family(a.sink.pid())
	if t.place != "" {
		free, err := placement(t.place, client, clients, sinks, helpers)
		defer free()
		if err != nil {
			return nil, err
		}
	}
	kernel := kernelMemory()
	if err := goOn(); err != nil {
		return nil, err
	}

	if line, err = lines.ReadString('\n'); err != nil {
		return nil, fmt.Errorf("the program has said %q: %w", line, err)
	}
	o, err := parseOutcome(line)
	if err != nil {
		return nil, err
	}
	o.kernel = kernelMemory() - kernel
	clientsAfter, sinksAfter := family(client), family(a.sink.pid())
	o.client = growth(clients, clientsAfter)
	o.sink = growth(sinks, sinksAfter)
	o.memory = clientsAfter[client].rss - clients[client].rss
	if t.helper != nil {
		after := family(t.helper.pid())
		o.helper = growth(helpers, after)
		holder := busiest(helpers, after)
		o.memory = after[holder].rss - helpers[holder].rss
	}
	if t.weigh {
		if err := o.weighAfter(ctx, t.helper.pid(), weight, parent); err != nil {
			return nil, err
		}
	}
	return o, goOn()
}

// weighAfter notes the growth of the memory of the helper and its descendants, and their CPU time
// without calls. The parameter before is the memory of all these processes, and the parameter
// parent is that of the helper alone. Both were weighed before the work.
func (o *outcome) weighAfter(ctx context.Context, helper int, before, parent memory) error {
	// Before the work, tlsd had a spare worker. It must have one again, or the growth is wrong.
	after, err := stable(ctx, helper)
	if err != nil {
		return err
	}
	now, err := weigh(after)
	if err != nil {
		return err
	}
	own, err := weigh(justOne(helper, after))
	if err != nil {
		return err
	}
	o.weight = memory{now.pss - before.pss, now.dirty - before.dirty}
	o.parent = memory{own.pss - parent.pss, own.dirty - parent.dirty}
	o.idle, err = idleLoad(ctx, helper)
	return err
}

// parseOutcome reads "done units=… seconds=… cpu=… name=number…".
func parseOutcome(line string) (*outcome, error) {
	o := &outcome{extra: map[string]float64{}}
	fields := strings.Fields(line)
	if len(fields) == 0 || fields[0] != "done" {
		return nil, fmt.Errorf("the program has said %q", line)
	}
	for _, f := range fields[1:] {
		name, number, _ := strings.Cut(f, "=")
		v, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return nil, fmt.Errorf("the program has said %q: %w", line, err)
		}
		o.extra[name] = v
	}
	o.units, o.seconds = o.extra["units"], o.extra["seconds"]
	if o.units <= 0 || o.seconds <= 0 {
		return nil, fmt.Errorf("the program has said %q: it has done nothing", line)
	}
	return o, nil
}

// A job is work that any contestant can do. The method run turns it into a task for the
// contestant's program.
type job struct {
	flags   []string
	args    []string
	env     []string
	place   string
	tickets bool // whether to use arena.ticketsPort
}

// run lets a contestant do a client's work. ok is false if the contestant is absent.
func (a *arena) run(ctx context.Context, who string, j job) (o *outcome, ok bool, err error) {
	port := a.port
	if j.tickets {
		port = a.ticketsPort
	}
	t := task{env: j.env, place: j.place}
	argv := append([]string{"-c", a.id.ca}, j.flags...)
	switch who {
	case inProcess:
		t.program = "client-inprocess"
	case ours:
		t.program, t.helper = "client-plugin", a.tlsd
		argv = append(argv, "-l", a.plugin)
	case oneRelay, twoRelays:
		t.program = "client-hop"
		relays := filepath.Join(a.dir, "relay-inprocess")
		if who == twoRelays {
			relays = filepath.Join(a.dir, "relay-hop") + "," + relays
		}
		argv = append(argv, "-l", relays)
	default:
		p := a.proxies[who]
		if p == nil {
			return nil, false, nil
		}
		t.program, t.helper, port = "client-plain", p.process, p.port
	}
	t.args = append(append(argv, "-p", strconv.Itoa(port)), j.args...)
	o, err = a.measure(ctx, t)
	return o, true, err
}
