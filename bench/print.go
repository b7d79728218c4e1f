package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// A section is a part of the output, and of BENCHMARKS.md. It is valid Markdown.
type section struct {
	name  string
	print func(*results, io.Writer)
}

var sections = []section{
	{"run", (*results).printRun},
	{"speeds", (*results).printSpeeds},
	{"cpu", (*results).printCPU},
	{"goals", (*results).printGoals},
	{"hops", (*results).printHops},
	{"growth", (*results).printGrowth},
}

// text returns the Markdown of a section, without blank lines around it. It returns "" if nothing
// was measured for the section.
func (r *results) text(s section) string {
	var b strings.Builder
	s.print(r, &b)
	return strings.TrimSpace(b.String())
}

// print writes all sections.
func (r *results) print(w io.Writer) {
	for _, s := range sections {
		if text := r.text(s); text != "" {
			fmt.Fprintf(w, "\n%s\n", text)
		}
	}
}

// printRun says where the results come from.
func (r *results) printRun(w io.Writer) {
	fmt.Fprintf(w, "%s, %s run, %d rounds, %.0f s\n\n- %s\n- %s\n", r.Date, r.Plan, r.Rounds,
		r.Seconds, r.Machine, r.Load)
	r.Load.warn(w)
	var names []string
	for _, name := range []string{"tlsd", "libssl of tlsd", "libssl of the C programs",
		"stunnel", "haproxy", "socat"} {
		names = append(names, name+": "+r.Versions[name])
	}
	fmt.Fprintf(w, "- %s\n", strings.Join(names, "; "))
	for _, p := range r.Joined {
		fmt.Fprintf(w, "- %d rows (%s …) are of another run: %s, %s run, %d rounds; %s\n",
			len(p.Rows), strings.Join(p.Rows[:min(1, len(p.Rows))], ""), p.Date, p.Plan,
			p.Rounds, p.Load)
		p.Load.warn(w)
	}
}

// warn prints a warning if other work used more than a tenth of the machine's CPU time.
func (l load) warn(w io.Writer) {
	if disturbed := l.Others + l.Stolen; disturbed > 0.1 {
		fmt.Fprintf(w, "- THE MACHINE WAS BUSY WITH OTHER WORK (%.0f %%): ratios are "+
			"rough, and times say little\n", 100*disturbed)
	}
}

var columns = append([]string{inProcess, ours}, proxyNames...)

func (r *results) printSpeeds(w io.Writer) {
	t := table{{"row", "work", "unit", "", inProcess, ours, "ratio", "stunnel", "haproxy",
		"socat", "to the best proxy"}}
	for _, rr := range r.Rows {
		if rr.Group != "" {
			continue
		}
		line := []string{rr.Name, rr.Title, rr.Unit, rr.better()}
		for _, name := range columns {
			c := rr.contestant(name)
			if name == inProcess && c == nil {
				c = rr.contestant(socketpair)
			}
			line = append(line, c.text())
			if name == ours {
				line = append(line, ratioText(c.OfBaseline))
			}
		}
		var toBest *float64
		if best := rr.bestProxy(); best != nil {
			toBest = medianRatio(rr.contestant(ours).Samples, best.Samples)
		}
		t = append(t, append(line, ratioText(toBest)))
	}
	if len(t) == 1 {
		return
	}
	t.print(w)
	fmt.Fprint(w, "\n↑ more is better, ↓ less is better. The results are medians. In each "+
		"round the result of tlsd is divided by the result of in-process, and the "+
		"ratio is the median of these quotients.\n"+
		"In the row `call`, the column `in-process` shows a bare write and read over a "+
		"socketpair.\n\n")
}

// text returns the text for the contestant's cell in a table.
func (c *contestantResult) text() string {
	switch {
	case c == nil:
		return ""
	case c.Absent:
		return "ABSENT"
	case c.Median == nil:
		return "FAILED"
	case len(c.Errors) > 0:
		return digits(*c.Median) + fmt.Sprintf(" (%d FAILED)", len(c.Errors))
	}
	return digits(*c.Median)
}

func ratioText(v *float64) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%.2f", *v)
}

func (r *results) printCPU(w io.Writer) {
	t := table{append([]string{"CPU time, µs", "for one"}, columns...)}
	for _, rr := range r.Rows {
		if rr.Group != "" {
			continue
		}
		one := map[string]string{"MB/s": "MB", "1/s": "connection"}[rr.Unit]
		if one == "" {
			one = "round trip"
		}
		line := []string{rr.Name, one}
		any := false
		for _, name := range columns {
			c := rr.contestant(name)
			if name == inProcess && c == nil {
				c = rr.contestant(socketpair)
			}
			cell := ""
			if c != nil && c.CPU != nil {
				cell = fmt.Sprintf("%s = %s + %s + %s", digits(c.CPU.sum()),
					digits(c.CPU.Client), digits(c.CPU.Helper),
					digits(c.CPU.Sink))
				any = true
			}
			line = append(line, cell)
		}
		if any {
			t = append(t, line)
		}
	}
	if len(t) > 1 {
		t.print(w)
		fmt.Fprint(w, "\nsum = client + (tlsd or proxy) + sink.\n\n")
	}
}

func (r *results) printGoals(w io.Writer) {
	t := table{{"row", "goal", "measured", "verdict"}}
	for _, g := range r.Goals {
		text := fmt.Sprintf("at least %v", g.AtLeast)
		if g.AtMost > 0 {
			text = fmt.Sprintf("at most %v", g.AtMost)
		}
		if g.Than != "" {
			text += " × " + g.Than
		} else {
			text += " " + r.row(g.Row).Unit
		}
		t = append(t, []string{g.Row, text, ratioText(g.Value), strings.ToUpper(g.Verdict)})
	}
	if len(t) > 1 {
		t.print(w)
		fmt.Fprintln(w)
	}
}

// A table has lines of cells. The first line is the heading.
type table [][]string

func (t table) print(w io.Writer) {
	widths := make([]int, len(t[0]))
	for _, line := range t {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	rule := make([]string, len(widths))
	for i, n := range widths {
		rule[i] = strings.Repeat("-", max(n, 1))
	}
	for _, line := range slices.Insert(slices.Clone(t), 1, rule) {
		for i, cell := range line {
			fmt.Fprintf(w, "| %s%s ", cell,
				strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)))
		}
		fmt.Fprintln(w, "|")
	}
}
