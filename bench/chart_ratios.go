package main

import (
	"fmt"
	"math"
	"strings"
)

// chartRatios shows the comparison: for each row the speeds of tlsd and of the proxies, divided by
// the speed of the row's first contestant. The first contestant is in-process, but socketpair in
// the row "call". In all rows, further to the right is better. The chart is nil if nothing was
// compared.
func (r *results) chartRatios() *chart {
	var rows []*rowResult
	for _, rr := range r.Rows {
		if c := rr.contestant(ours); rr.Group == "" && c != nil && c.OfBaseline != nil {
			rows = append(rows, rr)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	const (
		width, right      = 900, 60
		top, step, bottom = 66, 26, 66
	)
	left := 0.0
	for _, rr := range rows {
		left = math.Max(left, widthOf(rr.label())+24)
	}
	height := float64(top + step*len(rows) + bottom)
	c := newChart(width, height, "How fast tlsd and three proxies are, compared to OpenSSL "+
		"in-process: "+r.Date)

	lo, hi := 0.5, 2.0
	for _, rr := range rows {
		for _, who := range rr.Contestants {
			if v, ok := rr.speed(who); ok {
				lo, hi = math.Min(lo, v/1.05), math.Max(hi, v*1.05)
			}
		}
	}
	lo, hi = math.Pow(2, math.Floor(math.Log2(lo))), math.Pow(2, math.Ceil(math.Log2(hi)))
	x := scale{lo: lo, hi: hi, from: left, to: width - right, log: true}
	end := height - bottom
	for v := lo; v <= hi*1.01; v *= 2 {
		c.line("grid", x.at(v), top, x.at(v), end)
		c.text("small muted", "middle", x.at(v), end+16, plain(v))
	}
	c.line("axis", x.at(1), top, x.at(1), end)
	c.text("small muted", "middle", (x.from+x.to)/2, end+36, "speed (for memory: "+
		"1 / memory), where in-process is 1; logarithmic; more is better")
	c.text("small muted", "middle", (x.from+x.to)/2, end+52, "one call: compared to a write "+
		"and a read over a socketpair")
	c.text("head", "start", 14, 20, "tlsd and three proxies, compared to OpenSSL in-process")
	c.ratioLegend(14, 46)

	for i, rr := range rows {
		r.drawRow(c, rr, x, top+step*(float64(i)+0.5))
	}
	return c
}

// drawRow draws a row around the height y: its label, tlsd's bar and ratio, the signs of the
// proxies, and the goals. The parameter x maps speeds to coordinates.
func (r *results) drawRow(c *chart, rr *rowResult, x scale, y float64) {
	c.text("small", "end", x.from-10, y+4, rr.label())
	v, _ := rr.speed(rr.contestant(ours))
	class := "ours"
	if r.missed(rr.Name) {
		class = "missed"
	}
	c.rect(class, math.Min(x.at(1), x.at(v)), y-7, math.Abs(x.at(v)-x.at(1)), 14)
	c.text("small", "start", x.to+8, y+4, fmt.Sprintf("%.2f", v))
	// All halos come first, so that no halo covers the sign of another proxy.
	for _, class := range []string{"halo", "others"} {
		for _, who := range rr.Contestants {
			if p, ok := rr.speed(who); ok && who.Name != ours {
				c.mark(class, who.Name, x.at(p), y)
			}
		}
	}
	for _, g := range r.Goals {
		if at, ok := rr.goalAt(g); ok && at >= x.lo && at <= x.hi {
			c.line("goal", x.at(at), y-11, x.at(at), y+11)
		}
	}
}

// label returns the row's name in the chart.
func (rr *rowResult) label() string { return fmt.Sprintf("%s, %s", rr.Title, rr.Unit) }

func (c *chart) ratioLegend(x, y float64) {
	c.rect("ours", x, y-10, 22, 12)
	c.text("small", "start", x+28, y, "tlsd")
	c.rect("missed", x+62, y-10, 22, 12)
	c.text("small", "start", x+90, y, "tlsd, a goal is not met")
	c.line("goal", x+228, y-12, x+228, y+4)
	c.text("small", "start", x+236, y, "goal")
	for i, who := range proxyNames {
		at := x + 278 + float64(i)*72
		c.mark("others", who, at, y-4)
		c.text("small", "start", at+10, y, who)
	}
}

// speed says how many times faster a contestant is than the row's first contestant. The result v is
// OfBaseline, or its inverse in a row where less is better. The result ok is false if there is no
// OfBaseline.
func (rr *rowResult) speed(c *contestantResult) (v float64, ok bool) {
	if c.OfBaseline == nil || *c.OfBaseline <= 0 {
		return 0, false
	}
	if rr.LowerBetter {
		return 1 / *c.OfBaseline, true
	}
	return *c.OfBaseline, true
}

// goalAt returns a factor: to meet the goal, tlsd must be so many times faster than the row's first
// contestant. The second result is false if the goal is of another row, or does not compare tlsd
// with a contestant of this row.
func (rr *rowResult) goalAt(g goalResult) (float64, bool) {
	want := max(g.AtLeast, g.AtMost)
	if g.AtMost > 0 {
		want = 1 / g.AtMost
	}
	switch {
	case g.Row != rr.Name:
	case g.Than == rr.Contestants[0].Name:
		return want, true
	case strings.HasPrefix(g.Than, anyProxy):
		if best := rr.bestProxy(); best != nil {
			v, ok := rr.speed(best)
			return v * want, ok
		}
	}
	return 0, false
}

// missed says whether one of the row's goals is not met.
func (r *results) missed(row string) bool {
	for _, g := range r.Goals {
		if g.Row == row && g.Verdict == "not met" {
			return true
		}
	}
	return false
}
