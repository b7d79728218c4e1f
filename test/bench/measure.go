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
)

var proxyNames = []string{"stunnel", "haproxy", "socat"}

// An outcome is what one program has measured of itself, and what was seen of
// the processes that worked for it.
type outcome struct {
	units, seconds float64
	extra          map[string]float64

	client, helper, sink time.Duration // CPU time
	memory               int64         // growth of the process that holds the connections, bytes
}

// measureTimeout bounds one measurement.
const measureTimeout = 2 * time.Minute

// measure runs one of the C programs through its turn (see src/measure.h).
// helper is the process that works for it, with its family; nil if there is none.
func (a *arena) measure(ctx context.Context, helper *process, program string, args ...string) (*outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(a.dir, program), args...)
	cmd.Env = a.env()
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
	o, err := a.takeTurn(ctx, helper, cmd.Process.Pid, lines, func() error { _, err := in.Write([]byte("\n")); return err })
	if err != nil {
		in.Close() // the program leaves by itself
	}
	if exit := cmd.Wait(); exit != nil {
		if ctx.Err() != nil {
			exit = ctx.Err()
		}
		if text := bytes.TrimSpace(stderr.Bytes()); len(text) > 0 {
			exit = fmt.Errorf("%w: %s", exit, text)
		}
		return nil, exit
	}
	return o, err
}

func (a *arena) takeTurn(ctx context.Context, helper *process, client int, lines *bufio.Reader, goOn func() error) (*outcome, error) {
	line, err := lines.ReadString('\n')
	if err != nil || line != "ready\n" {
		return nil, fmt.Errorf("the program has said %q: %w", line, err)
	}
	helpers := map[int]usage{}
	if helper != nil {
		if helpers, err = settle(ctx, helper.pid()); err != nil {
			return nil, err
		}
	}
	clients, sinks := family(client), family(a.sink.pid())
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
	clientsAfter, sinksAfter := family(client), family(a.sink.pid())
	o.client = growth(clients, clientsAfter)
	o.sink = growth(sinks, sinksAfter)
	o.memory = clientsAfter[client].rss - clients[client].rss
	if helper != nil {
		after := family(helper.pid())
		o.helper = growth(helpers, after)
		holder := busiest(helpers, after)
		o.memory = after[holder].rss - helpers[holder].rss
	}
	return o, goOn()
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

// run lets a contestant do a client's work. ok is false if it is absent.
func (a *arena) run(ctx context.Context, who string, port int, flags []string, args ...string) (o *outcome, ok bool, err error) {
	argv := append([]string{"-c", a.id.ca}, flags...)
	at := func(port int) []string { return append(append(argv, "-p", strconv.Itoa(port)), args...) }
	switch who {
	case inProcess:
		o, err = a.measure(ctx, nil, "client-inprocess", at(port)...)
	case ours:
		argv = append(argv, "-l", a.plugin)
		o, err = a.measure(ctx, a.tlsd, "client-plugin", at(port)...)
	default:
		p := a.proxies[who]
		if p == nil {
			return nil, false, nil
		}
		o, err = a.measure(ctx, p.process, "client-plain", at(p.port)...)
	}
	return o, true, err
}
