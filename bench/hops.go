package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// This file measures each step between the script and the wire by itself: bare sockets between two
// processes, libssl against libssl in memory, Go's way to wait for data, and the smallest possible
// process between client and sink (src/relay.c). sums.go adds up the steps.

// hops returns the works that measure the steps. Instead of contestants these works compare
// placements of the processes on CPUs (see place.go).
func hops(p plan) []work {
	seconds := strconv.FormatFloat(p.seconds/2, 'f', -1, 64)
	var list []work
	add := func(w work) {
		w.group, w.every, w.times = "hop", p.every, 1
		list = append(list, w)
	}
	// The function program adds a work that a single C program does. Its parameter t returns
	// the program's task.
	program := func(t func(a *arena) (task, error), places []string, rows ...row) {
		add(work{rows: rows, who: places, run: func(ctx context.Context, a *arena,
			at string) (*outcome, bool, error) {
			t, err := t(a)
			if err != nil {
				return nil, true, err
			}
			if at != anyCPU {
				t.place = at
			}
			o, err := a.measure(ctx, t)
			if errors.Is(err, errOneCPU) {
				return nil, false, nil
			}
			return o, true, err
		}})
	}
	bare := func(r row, places []string, carrier, kind string, size int, partner string) {
		program(func(*arena) (task, error) {
			t := task{program: "bare",
				args: []string{carrier, kind, strconv.Itoa(size), seconds}}
			if partner == "" {
				return t, nil
			}
			argv, err := partnerCommand(partner, kind, size)
			t.args = append(t.args, argv...)
			return t, err
		}, places, r)
	}
	records := func(kind string, size int, rows ...row) {
		program(func(a *arena) (task, error) {
			return task{program: "records", args: []string{a.id.ca, a.id.cert, a.id.key,
				kind, strconv.Itoa(size), seconds}}, nil
		}, []string{oneCPU}, rows...)
	}
	// The function through adds a work that a contestant's client does.
	through := func(r row, who string, places []string, j job) {
		add(work{rows: []row{r}, who: places, run: func(ctx context.Context, a *arena,
			at string) (*outcome, bool, error) {
			if j.place = at; at == anyCPU {
				j.place = ""
			}
			o, ok, err := a.run(ctx, who, j)
			if errors.Is(err, errOneCPU) {
				return nil, false, nil
			}
			return o, ok, err
		}})
	}
	trip := func(name, title string) row {
		return row{name: "hop-" + name + "-64", title: "64 bytes to and fro, " + title,
			unit: "µs", lower: true, per: 1, of: microseconds}
	}
	both := []string{oneCPU, twoCPUs}
	bare(trip("unix", "a Unix socket between C programs"), both, "unix", "pingpong", 64, "")
	bare(trip("block", "a Unix socket to a Go program in read(2)"), both, "unix", "pingpong",
		64, "blocking")
	bare(trip("netpoll", "a Unix socket to a Go program's netpoller"), both, "unix", "pingpong",
		64, "netpoll")
	program(func(a *arena) (task, error) {
		return task{program: "calls", args: []string{a.plugin, "loop", seconds},
			helper: a.tlsd}, nil
	}, both, row{name: "hop-call", title: "a call of Backend() to tlsd", unit: "µs",
		lower: true, per: 1, of: microseconds})
	bare(trip("tcp", "TCP between C programs"), both, "tcp", "pingpong", 64, "")
	records("pingpong", 64, trip("tls", "TLS in memory, both ends in a thread"))
	_, j := trips(64, seconds)
	through(trip("inprocess", "TLS to the sink, in-process"), inProcess, both, j)
	loose := []string{oneCPU, anyCPU}
	through(trip("relay", "TLS to the sink, a C program between"), oneRelay, loose, j)
	through(trip("relays", "TLS to the sink, two C programs between"), twoRelays, loose, j)
	through(trip("tlsd", "TLS to the sink, through tlsd"), ours, loose, j)
	_, j = bulk("write", 64, 1, seconds)
	j.env = []string{"TLSD_STRICT_WRITES=1"}
	through(row{name: "hop-strict-64",
		title: "a Write of 64 bytes that waits for tlsd's answer", unit: "µs",
		lower: true, per: 64,
		of: func(o *outcome) float64 { return o.seconds * 1e6 / o.units * 64 }},
		ours, loose, j)

	mass := func(name string, size int, title string) row {
		return row{name: "hop-" + name + "-" + short(size), title: title + ", " +
			long(size) + " pieces", unit: "MB/s", per: megabyte, of: megabytes}
	}
	free := []string{anyCPU}
	const mib, record = 1 << 20, 16 << 10
	bare(mass("memory", mib, "copied in memory"), free, "memory", "write", mib, "")
	bare(mass("check", mib, "made and checked"), free, "check", "write", mib, "")
	bare(mass("unix", mib, "a Unix socket between C programs"), free, "unix", "write", mib, "")
	bare(mass("netpoll", mib, "a Unix socket to a Go program's netpoller"), free, "unix",
		"write", mib, "netpoll")
	bare(mass("tcp", record, "TCP between C programs"), free, "tcp", "write", record, "")
	part := func(name, title string) row {
		r := mass(name, mib, title)
		r.per = 0
		r.of = func(o *outcome) float64 { return o.units / megabyte / o.extra[name] }
		return r
	}
	records("write", mib, part("seal", "TLS in memory, sealed, of CPU time"),
		part("open", "TLS in memory, opened, of CPU time"))
	_, j = bulk("write", mib, 1, seconds)
	through(mass("inprocess", mib, "TLS to the sink, in-process"), inProcess, free, j)
	through(mass("relay", mib, "TLS to the sink, a C program between"), oneRelay, free, j)
	through(mass("relays", mib, "TLS to the sink, two C programs between"), twoRelays, free, j)
	through(mass("tlsd", mib, "TLS to the sink, through tlsd"), ours, free, j)
	return list
}

// better returns an arrow: up if more is better, down if less is better.
func (rr *rowResult) better() string {
	if rr.LowerBetter {
		return "↓"
	}
	return "↑"
}

// cell returns the text of a contestant's result, with the CPU time in brackets.
func (rr *rowResult) cell(who string) string {
	c := rr.contestant(who)
	if c == nil || c.CPU == nil {
		return c.text()
	}
	return fmt.Sprintf("%s (%s)", c.text(), digits(c.CPU.sum()))
}
