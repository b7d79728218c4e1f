package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A row is one line in a table of results.
type row struct {
	name, title, unit string
	lower             bool // less is better
	// Rows of one series differ in one number, which is in at. It is the size in bytes, or the
	// number of connections or sessions.
	series string
	at     int
	// per is the number of units for which a table shows the CPU time; 0: it shows none.
	per float64
	// This function computes the row's sample from an outcome.
	of func(*outcome) float64
}

// A work is what the contestants do, one after the other. One run gives a sample for each row of
// the work.
type work struct {
	group string // see rowResult
	rows  []row
	who   []string
	every int // 1: the work runs in each round; 3: in the rounds 0, 3, 6 and so on
	times int // how often the work runs in such a round
	// run lets a contestant do the work. ok is false if the contestant is absent.
	run func(context.Context, *arena, string) (o *outcome, ok bool, err error)
}

// A plan says how long everything takes.
type plan struct {
	name    string
	rounds  int
	seconds float64 // the length of one measurement
	idle    int     // the number of idle connections
	every   int     // work.every of the works of hops() and growths()
	// sessions is the largest number of sessions at the same time.
	sessions int
	// budget limits the time of all rounds; 0: no limit. A round is not begun if it would
	// probably end after the budget.
	budget time.Duration
}

var (
	full = plan{name: "full", rounds: 9, seconds: 0.6, idle: 10000, every: 4, sessions: 1000,
		budget: 14 * time.Minute}
	quick = plan{name: "quick", rounds: 3, seconds: 0.25, idle: 1000, every: 3, sessions: 100,
		budget: 105 * time.Second}
)

const megabyte = 1e6

func perSecond(o *outcome) float64    { return o.units / o.seconds }
func megabytes(o *outcome) float64    { return o.units / megabyte / o.seconds }
func microseconds(o *outcome) float64 { return o.seconds * 1e6 / o.units }

// works returns all works, in the order of the tables.
func works(p plan) []work { return slices.Concat(comparison(p), hops(p), growths(p)) }

var everybody = append([]string{inProcess, ours}, proxyNames...)

// clients returns a work that src/client.c does for each contestant.
func clients(r row, who []string, j job) work {
	return work{rows: []row{r}, who: who, every: 1, times: 1,
		run: func(ctx context.Context, a *arena, who string) (*outcome, bool,
			error) {
			return a.run(ctx, who, j)
		}}
}

// bulk returns the row and the job of a client that moves pieces of size bytes on n connections, in
// one direction. kind is write or read.
func bulk(kind string, size, n int, seconds string) (row, job) {
	return row{name: kind + "-" + short(size), title: fmt.Sprintf("bulk %s, %s pieces", kind,
			long(size)), unit: "MB/s",
			per: megabyte, of: megabytes},
		job{args: []string{kind, strconv.Itoa(size), strconv.Itoa(n), seconds}}
}

// trips returns the row and the job of a client that sends messages of size bytes to and fro on one
// connection.
func trips(size int, seconds string) (row, job) {
	return row{name: "pingpong-" + short(size), title: "ping-pong, " + long(size), unit: "µs",
			lower: true,
			per:   1, of: microseconds},
		job{args: []string{"pingpong", strconv.Itoa(size), "1", seconds}}
}

// comparison returns the works of the main table.
func comparison(p plan) []work {
	seconds := strconv.FormatFloat(p.seconds, 'f', -1, 64)
	var list []work
	add := func(r row, j job) { list = append(list, clients(r, everybody, j)) }
	add(bulk("write", 4<<10, 1, seconds))
	add(bulk("write", 64<<10, 1, seconds))
	add(bulk("write", 1<<20, 1, seconds))
	add(bulk("read", 16<<10, 1, seconds))
	add(bulk("read", 64<<10, 1, seconds))
	add(trips(64, seconds))
	add(trips(16<<10, seconds))
	add(row{name: "beside-64", title: "ping-pong, 64 bytes, beside a writer to a slow peer, " +
		"99th percentile", unit: "µs", lower: true,
		of: func(o *outcome) float64 { return o.extra["p99"] * 1e6 }},
		job{args: []string{"beside", "64", "1", seconds}})
	add(row{name: "connect", title: "connect, handshake, one write, close", unit: "1/s", per: 1,
		of: perSecond},
		job{args: []string{"connect", "0", "1", seconds}})

	list = append(list, work{
		rows: []row{{name: "call", title: "one call, Backend()", unit: "µs", lower: true,
			per: 1, of: microseconds}},
		who: []string{socketpair, ours}, every: 1, times: 1,
		run: func(ctx context.Context, a *arena, who string) (o *outcome, ok bool,
			err error) {
			t := task{program: "bare",
				args: []string{"unix", "pingpong", "64", seconds}}
			if who == ours {
				t = task{program: "calls",
					args: []string{a.plugin, "loop", seconds}, helper: a.tlsd}
			}
			o, err = a.measure(ctx, t)
			return o, true, err
		},
	}, work{
		rows: []row{{name: "first-call", title: "first call of a fresh process", unit: "ms",
			lower: true,
			of:    func(o *outcome) float64 { return o.seconds * 1e3 }}},
		who: []string{ours}, every: 1, times: 5,
		run: func(ctx context.Context, a *arena, _ string) (*outcome, bool, error) {
			o, err := a.measure(ctx, task{program: "calls",
				args: []string{a.plugin, "first"}, helper: a.tlsd})
			return o, true, err
		},
	})

	for _, n := range []int{1, 10, 100, 1000} {
		list = append(list, busy(n, seconds))
	}
	idle := idling(idleConnections(p.idle), "idle")
	idle.every = p.every
	return append(list, idle)
}

// busy returns the work that writes on n connections of one session at the same time.
func busy(n int, seconds string) work {
	r, j := bulk("write", 16<<10, n, seconds)
	r.name, r.title = fmt.Sprintf("busy-%d", n), fmt.Sprintf("%s, %d connections", r.title, n)
	r.series, r.at = "busy", n
	w := clients(r, everybody, j)
	w.rows = append(w.rows, row{name: r.name + "-cpus", title: r.title +
		", CPUs that speak TLS", unit: "CPUs",
		of: func(o *outcome) float64 {
			return cmp.Or(o.helper, o.client).Seconds() / o.seconds
		}})
	return w
}

// idling returns the work that opens n connections in one session and leaves them open.
func idling(n int, name string) work {
	what := fmt.Sprintf("%d idle connections, ", n)
	sample := min(n/2, 100)
	w := clients(row{name: name + "-memory", title: what + "memory each", unit: "KiB",
		lower: true, series: "idle-memory", at: n,
		of: func(o *outcome) float64 { return float64(o.memory) / 1024 / o.units }},
		[]string{inProcess, ours}, job{tickets: true, flags: []string{"-r"},
			args: []string{"idle", "0", strconv.Itoa(n)}})
	w.rows = append(w.rows,
		row{name: name + "-kernel", title: what + "kernel memory each, of all ends",
			unit: "KiB", lower: true, series: "idle-kernel", at: n,
			of: func(o *outcome) float64 { return float64(o.kernel) / 1024 / o.units }},
		row{name: name + "-first",
			title: fmt.Sprintf("%sopening one, median of the first %d", what, sample),
			unit:  "µs", lower: true, series: "idle-first", at: n,
			of: func(o *outcome) float64 { return o.extra["first"] * 1e6 }},
		row{name: name + "-last",
			title: fmt.Sprintf("%sopening one, median of the last %d", what, sample),
			unit:  "µs", lower: true, series: "idle-last", at: n,
			of: func(o *outcome) float64 { return o.extra["last"] * 1e6 }})
	return w
}

// idleConnections returns n, or less if the limit of descriptors is too low for n connections. A
// worker needs two descriptors for each: the data channel and the socket to the peer.
func idleConnections(n int) int {
	const others = 200 // room for a process's other descriptors
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil && l.Max < uint64(2*n+others) {
		fewer := max((int(l.Max)-others)/2, 200)
		say("only %d idle connections instead of %d: the limit of descriptors is %d "+
			"(ulimit -Hn)", fewer, n, l.Max)
		return fewer
	}
	return n
}

// short writes a size in bytes for the name of a row.
func short(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%dm", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%dk", n>>10)
	}
	return strconv.Itoa(n)
}

// long writes a size in bytes for a reader.
func long(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
