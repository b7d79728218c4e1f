package main

import (
	"fmt"
	"io"
)

// printHops prints the steps and their sums.
func (r *results) printHops(w io.Writer) {
	t := table{{"row", "step", "unit", "", oneCPU, twoCPUs, anyCPU}}
	for _, rr := range r.Rows {
		if rr.Group == "hop" {
			t = append(t, []string{rr.Name, rr.Title, rr.Unit, rr.better(),
				rr.cell(oneCPU), rr.cell(twoCPUs), rr.cell(anyCPU)})
		}
	}
	if len(t) == 1 {
		return
	}
	t.print(w)
	fmt.Fprint(w, "\nMedians, and in brackets the CPU time of all processes in µs, for one "+
		"round trip, one call or one MB.\n\n")
	r.printTrip(w)
	r.printMegabyte(w)
}

// A sum adds up values, and has a line of a table for each of them.
type sum struct {
	lines table
	total float64
	// open is set if something was not measured. Then print prints nothing.
	open bool
}

// add adds the value v, which was taken from the rows with these names. If v was not measured, it
// is nil.
func (s *sum) add(what, rows string, v *float64) {
	if v == nil {
		s.open = true
		return
	}
	s.total += *v
	s.lines = append(s.lines, []string{what, rows, digits(*v)})
}

// compare adds two lines to the table: the sum so far, and the value that was measured for all
// these parts together, in the row with this name.
func (s *sum) compare(what, row string, measured *float64) {
	if measured == nil {
		s.open = true
		return
	}
	s.lines = append(s.lines, []string{"**" + what + ", as the sum**", "",
		"**" + digits(s.total) + "**"},
		[]string{"**" + what + ", as measured**", row, "**" + digits(*measured) + "**"})
}

func (s *sum) print(w io.Writer, head ...string) {
	if !s.open {
		append(table{head}, s.lines...).print(w)
		fmt.Fprintln(w)
	}
}

// printTrip prints the parts of a round trip of 64 bytes between processes that share one CPU. Only
// one process works at a time, so the times add up. The values are CPU times, so programs outside
// of the benchmark that use the same CPU do not count.
func (r *results) printTrip(w io.Writer) {
	var s sum
	at := func(row string) *float64 { return r.cpuOf(row, oneCPU) }
	s.add("TCP to and fro", "hop-tcp-64", at("hop-tcp-64"))
	s.add("TLS at both ends", "hop-tls-64", at("hop-tls-64"))
	s.compare("in-process", "hop-inprocess-64", at("hop-inprocess-64"))
	s.add("a Unix socket to and fro", "hop-unix-64", at("hop-unix-64"))
	s.compare("a C program between", "hop-relay-64", at("hop-relay-64"))
	s.add("Go's netpoller instead of read(2), twice", "2 × (hop-netpoll-64 − hop-unix-64)",
		difference(2, at("hop-netpoll-64"), at("hop-unix-64")))
	s.compare("tlsd", "hop-tlsd-64", at("hop-tlsd-64"))
	s.print(w, "one round trip of 64 bytes, all on one CPU", "from the rows", "CPU time, µs")
}

// printMegabyte prints the CPU time of a megabyte that is written in pieces of 1 MiB. The processes
// work at the same time, so elapsed times do not add up. CPU times do.
func (r *results) printMegabyte(w io.Writer) {
	var s sum
	thread := func(row string) *float64 { // for rows whose unit is MB for a second of CPU time
		v := r.medianOf(row, oneCPU)
		if v == nil {
			return nil
		}
		us := 1e6 / *v
		return &us
	}
	cpu := func(row string) *float64 { return r.cpuOf(row, anyCPU) }
	s.add("made by the writer, checked by the sink", "hop-check-1m", cpu("hop-check-1m"))
	s.add("sealed by the writer", "hop-seal-1m", thread("hop-seal-1m"))
	s.add("TCP", "hop-tcp-16k", cpu("hop-tcp-16k"))
	s.add("opened by the sink", "hop-open-1m", thread("hop-open-1m"))
	s.compare("in-process", "hop-inprocess-1m", cpu("hop-inprocess-1m"))
	s.add("a Unix socket to the worker", "hop-netpoll-1m", cpu("hop-netpoll-1m"))
	s.compare("tlsd", "hop-tlsd-1m", cpu("hop-tlsd-1m"))
	s.print(w, "one MB written in pieces of 1 MiB", "from the rows", "CPU time, µs")
}

func difference(times float64, a, b *float64) *float64 {
	if a == nil || b == nil {
		return nil
	}
	d := times * (*a - *b)
	return &d
}

// medianOf returns the result of a contestant in a row, or nil if it was not measured.
func (r *results) medianOf(row, who string) *float64 {
	if rr := r.row(row); rr != nil {
		if c := rr.contestant(who); c != nil {
			return c.Median
		}
	}
	return nil
}

// cpuOf returns the CPU time of all processes in a row, in µs, or nil if it was not measured.
func (r *results) cpuOf(row, who string) *float64 {
	if rr := r.row(row); rr != nil {
		if c := rr.contestant(who); c != nil && c.CPU != nil {
			sum := c.CPU.sum()
			return &sum
		}
	}
	return nil
}
