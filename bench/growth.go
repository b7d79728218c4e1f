package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
)

// How the cost grows: with the size of Writes, with the connections of a session, and with
// sessions, which are processes of tlsd. The rows of one series differ in one number.

// growths returns the works (see the type work) that measure growth. Some rows of these series,
// such as busy-10, are made in comparison().
func growths(p plan) []work {
	seconds := strconv.FormatFloat(p.seconds/2, 'f', -1, 64)
	two := []string{inProcess, ours}
	var list []work
	add := func(w work) {
		w.group, w.every, w.times = "growth", p.every, 1
		list = append(list, w)
	}
	for size := 64; size <= 16<<20; size *= 4 {
		r, j := bulk("write", size, 1, seconds)
		r.name, r.series, r.at = "growth-"+r.name, "write", size
		add(clients(r, two, j))
	}
	for size := 64; size <= 16<<20; size *= 4 {
		r, j := trips(size, seconds)
		r.name, r.series, r.at = "growth-"+r.name, "pingpong", size
		add(clients(r, two, j))
	}
	for n := 100; n < p.idle; n *= 10 {
		add(idling(n, fmt.Sprintf("growth-idle-%d", n)))
	}
	for n := 1; n <= min(p.sessions, busySessions); n *= 10 {
		r, j := bulk("write", 16<<10, n, seconds)
		r.name, r.title = fmt.Sprintf("growth-sessions-busy-%d", n),
			fmt.Sprintf("%s, %d sessions with a connection each", r.title, n)
		r.series, r.at = "sessions-busy", n
		j.flags = []string{"-a"}
		add(clients(r, two, j))
	}
	for _, n := range powersUpTo(p.sessions) {
		add(sessions(n))
	}
	return list
}

// busySessions is the largest number of sessions that work at the same time. It is small, because
// each of them has a client process on this machine.
const busySessions = 100

// powersUpTo returns the powers of ten below limit, and limit itself.
func powersUpTo(limit int) []int {
	var list []int
	for n := 1; n < limit; n *= 10 {
		list = append(list, n)
	}
	return append(list, limit)
}

// sessions returns the work that opens n sessions, one after the other, and leaves them open.
func sessions(n int) work {
	what := fmt.Sprintf("%d sessions with one call each, ", n)
	name := fmt.Sprintf("growth-sessions-%d-", n)
	const mib = 1 << 20
	return work{
		rows: []row{
			{name: name + "memory", title: what + "memory each", unit: "MiB",
				lower: true, series: "sessions-memory", at: n,
				of: func(o *outcome) float64 {
					return float64(o.weight.pss) / mib / o.units
				}},
			{name: name + "dirty", title: what + "memory of its own each", unit: "MiB",
				lower: true, series: "sessions-dirty", at: n,
				of: func(o *outcome) float64 {
					return float64(o.weight.dirty) / mib / o.units
				}},
			{name: name + "supervisor",
				title: what + "the supervisor's own memory, per session",
				unit:  "KiB", lower: true, series: "sessions-supervisor", at: n,
				of: func(o *outcome) float64 {
					return float64(o.parent.dirty) / 1024 / o.units
				}},
			{name: name + "served", title: what + "until all are served, one by one",
				unit: "s", lower: true, series: "sessions-served", at: n,
				of: func(o *outcome) float64 { return o.seconds }},
			{name: name + "last",
				title: fmt.Sprintf("%sfirst call, median of the last %d", what,
					min(n, 20)), unit: "ms", lower: true,
				series: "sessions-last", at: n,
				of: func(o *outcome) float64 {
					return o.extra["last"] * 1e3
				}},
			{name: name + "idle", title: what + "CPU time each while idle",
				unit: "µs/s", lower: true, series: "sessions-idle", at: n,
				of: func(o *outcome) float64 { return o.idle * 1e6 / o.units }},
		},
		who: []string{ours},
		run: func(ctx context.Context, a *arena, _ string) (*outcome, bool, error) {
			o, err := a.measure(ctx, task{program: "sessions",
				args: []string{a.socket, strconv.Itoa(n)}, helper: a.tlsd,
				weigh: true})
			if errors.Is(err, fs.ErrPermission) {
				say("ABSENT: %d sessions: %v", n, err)
				return nil, false, nil
			}
			return o, true, err
		},
	}
}

// series gives the rows of a series, sorted by their field At. If several rows have the same number
// in At, series gives the first of these rows, as firstAt does.
func (r *results) series(name string) []*rowResult {
	var list []*rowResult
	for _, rr := range r.Rows {
		if rr.Series == name {
			list = append(list, rr)
		}
	}
	slices.SortStableFunc(list, func(a, b *rowResult) int { return a.At - b.At })
	return slices.CompactFunc(list, func(a, b *rowResult) bool { return a.At == b.At })
}

// firstAt returns the first row of a series that has this number in its field At, or nil if no row
// has it.
func (r *results) firstAt(series string, at int) *rowResult {
	for _, rr := range r.Rows {
		if rr.Series == series && rr.At == at {
			return rr
		}
	}
	return nil
}

// printGrowth prints a table for each thing that grows.
func (r *results) printGrowth(w io.Writer) {
	r.growthTable(w, "bytes in one piece or message", func(n int) string { return long(n) },
		[]part{{"write", "write, MB/s"}, {"pingpong", "ping-pong, µs"}})
	number := func(n int) string { return strconv.Itoa(n) }
	r.growthTable(w, "busy connections, one session", number,
		[]part{{"busy", "write of 16 KiB pieces, MB/s in all"}})
	r.growthTable(w, "idle connections, one session", number,
		[]part{{"idle-memory", "memory each, KiB"},
			{"idle-last", "time to open one more, µs"}})
	r.growthTable(w, "busy sessions, one connection each", number,
		[]part{{"sessions-busy", "write of 16 KiB pieces, MB/s in all"}})
	r.growthTable(w, "sessions", number,
		[]part{{"sessions-memory", "memory each (PSS), MiB"},
			{"sessions-dirty", "private memory each (Private_Dirty), MiB"},
			{"sessions-supervisor", "the supervisor's own memory, per session, KiB"},
			{"sessions-served", "until all are served, s"},
			{"sessions-last", "first call, median of the last 20, ms"},
			{"sessions-idle", "CPU time each while idle, µs/s"}})
}

// A part of a growth table shows one series. A part without a baseline has one column, tlsd's. A
// part with a baseline has three: the baseline, tlsd and the ratio.
type part struct{ series, title string }

func (r *results) growthTable(w io.Writer, what string, number func(int) string, parts []part) {
	var at []int
	parts = slices.DeleteFunc(parts, func(p part) bool {
		return len(r.series(p.series)) == 0
	})
	head := []string{what}
	compared := map[string]bool{}
	for _, p := range parts {
		list := r.series(p.series)
		for _, rr := range list {
			at = append(at, rr.At)
			compared[p.series] = rr.contestant(inProcess) != nil
		}
		if compared[p.series] {
			head = append(head, p.title+": "+inProcess, ours, "ratio")
		} else {
			head = append(head, p.title+": "+ours)
		}
	}
	slices.Sort(at)
	at = slices.Compact(at)
	if len(at) < 2 {
		return // a single line would show no growth
	}
	t := table{head}
	for _, n := range at {
		line := []string{number(n)}
		for _, p := range parts {
			var in, our *contestantResult
			if rr := r.firstAt(p.series, n); rr != nil {
				in, our = rr.contestant(inProcess), rr.contestant(ours)
			}
			if compared[p.series] {
				line = append(line, in.text())
			}
			line = append(line, our.text())
			if compared[p.series] {
				ratio := ""
				if our != nil {
					ratio = ratioText(our.OfBaseline)
				}
				line = append(line, ratio)
			}
		}
		t = append(t, line)
	}
	t.print(w)
	fmt.Fprintln(w)
}
