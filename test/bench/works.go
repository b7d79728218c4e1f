package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A row is one line of the table.
type row struct {
	name, title, unit string
	lower             bool // is better
	// per is how many of the outcome's units one of the table's CPU figures stands for;
	// 0: there is no such figure.
	per float64
	// of is what a contestant has reached.
	of func(*outcome) float64
}

// A work is what contestants do in turn. One run of it gives a sample for each of its rows.
type work struct {
	rows  []row
	who   []string
	every int // runs in each round whose number it divides
	times int // in such a round
	run   func(context.Context, *arena, string) (o *outcome, ok bool, err error)
}

// A plan is how long everything takes.
type plan struct {
	name    string
	rounds  int
	seconds float64 // one measurement
	idle    int     // connections
	every   int     // rounds for one with idle connections
	// budget bounds the whole: a round is not begun if it would probably end later.
	budget time.Duration
}

var (
	full  = plan{name: "full", rounds: 9, seconds: 0.6, idle: 10000, every: 4, budget: 14 * time.Minute}
	quick = plan{name: "quick", rounds: 3, seconds: 0.25, idle: 1000, every: 3, budget: 105 * time.Second}
)

const megabyte = 1e6

func perSecond(o *outcome) float64    { return o.units / o.seconds }
func megabytes(o *outcome) float64    { return o.units / megabyte / o.seconds }
func microseconds(o *outcome) float64 { return o.seconds * 1e6 / o.units }

// works are all there are, in the order of the table.
func works(p plan) []work {
	everybody := append([]string{inProcess, ours}, proxyNames...)
	seconds := strconv.FormatFloat(p.seconds, 'f', -1, 64)
	var list []work

	client := func(r row, who []string, flags []string, args ...string) {
		list = append(list, work{rows: []row{r}, who: who, every: 1, times: 1,
			run: func(ctx context.Context, a *arena, who string) (*outcome, bool, error) {
				return a.run(ctx, who, a.port, flags, args...)
			}})
	}
	bulk := func(kind string, size int) {
		client(row{name: kind + "-" + short(size), title: fmt.Sprintf("bulk %s, %s pieces", kind, long(size)), unit: "MB/s",
			per: megabyte, of: megabytes}, everybody, nil, kind, strconv.Itoa(size), "1", seconds)
	}
	trip := func(size int) {
		client(row{name: "pingpong-" + short(size), title: "ping-pong, " + long(size), unit: "µs", lower: true,
			per: 1, of: microseconds}, everybody, nil, "pingpong", strconv.Itoa(size), "1", seconds)
	}
	bulk("write", 4<<10)
	bulk("write", 64<<10)
	bulk("write", 1<<20)
	bulk("read", 16<<10)
	bulk("read", 64<<10)
	trip(64)
	trip(16 << 10)
	client(row{name: "connect", title: "connect, handshake, one write, close", unit: "1/s", per: 1, of: perSecond},
		everybody, nil, "connect", "0", "1", seconds)

	list = append(list, work{
		rows: []row{{name: "call", title: "one call, Backend()", unit: "µs", lower: true, per: 1, of: microseconds}},
		who:  []string{socketpair, ours}, every: 1, times: 1,
		run: func(ctx context.Context, a *arena, who string) (o *outcome, ok bool, err error) {
			if who == ours {
				o, err = a.measure(ctx, a.tlsd, "calls", a.plugin, "loop", seconds)
			} else {
				o, err = a.measure(ctx, nil, "calls", "bare", "loop", seconds)
			}
			return o, true, err
		},
	}, work{
		rows: []row{{name: "first-call", title: "first call of a fresh process", unit: "ms", lower: true,
			of: func(o *outcome) float64 { return o.seconds * 1e3 }}},
		who: []string{ours}, every: 1, times: 5,
		run: func(ctx context.Context, a *arena, _ string) (*outcome, bool, error) {
			o, err := a.measure(ctx, a.tlsd, "calls", a.plugin, "first")
			return o, true, err
		},
	})

	for _, n := range []int{1, 10, 100, 1000} {
		client(row{name: fmt.Sprintf("busy-%d", n), title: fmt.Sprintf("bulk write, 16 KiB pieces, %d connections", n), unit: "MB/s",
			per: megabyte, of: megabytes}, []string{inProcess, ours}, nil, "write", strconv.Itoa(16<<10), strconv.Itoa(n), seconds)
	}

	n := idleConnections(p.idle)
	what := fmt.Sprintf("%d idle connections, ", n)
	return append(list, work{
		rows: []row{
			{name: "idle-memory", title: what + "memory each", unit: "KiB", lower: true,
				of: func(o *outcome) float64 { return float64(o.memory) / 1024 / o.units }},
			{name: "idle-first", title: what + "opening one of the first 100", unit: "µs", lower: true,
				of: func(o *outcome) float64 { return o.extra["first"] * 1e6 }},
			{name: "idle-last", title: what + "opening one of the last 100", unit: "µs", lower: true,
				of: func(o *outcome) float64 { return o.extra["last"] * 1e6 }},
		},
		who: []string{inProcess, ours}, every: p.every, times: 1,
		run: func(ctx context.Context, a *arena, who string) (*outcome, bool, error) {
			return a.run(ctx, who, a.ticketsPort, []string{"-r"}, "idle", "0", strconv.Itoa(n))
		},
	})
}

// idleConnections is n, or as many as the limit of descriptors allows.
func idleConnections(n int) int {
	const others = 200 // descriptors that a process has besides
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil && l.Max < uint64(n+others) {
		fewer := max(int(l.Max)-others, 200)
		say("only %d idle connections instead of %d: the limit of descriptors is %d (ulimit -Hn)", fewer, n, l.Max)
		return fewer
	}
	return n
}

// short and long write a size in bytes.
func short(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%dm", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%dk", n>>10)
	}
	return strconv.Itoa(n)
}

func long(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
