package main

import (
	"math"
)

// A panel is one small chart of growth.
type panel struct {
	title, x, y string
	bytes       bool // the values on the axis x are sizes in bytes
	log         bool // both axes are logarithmic; otherwise only the axis x
	lines       []curve
}

// A curve is a series of one contestant, or a goal.
type curve struct {
	name, class string
	points      [][2]float64
}

// chartGrowth shows how the cost grows. The chart is nil if no growth was measured.
func (r *results) chartGrowth() *chart {
	const connections, sessions = "connections", "sessions"
	panels := []panel{
		{title: "Write, by size", x: "bytes in one piece", y: "MB/s", bytes: true,
			lines: r.both("write")},
		{title: "Ping-pong, by size", x: "bytes in one message", y: "µs, logarithmic",
			bytes: true, log: true, lines: r.both("pingpong")},
		{title: "Busy connections of one session", x: connections, y: "MB/s in all",
			lines: r.both("busy")},
		{title: "Busy sessions, one connection each", x: sessions, y: "MB/s in all",
			lines: r.both("sessions-busy")},
		{title: "Idle connections: memory each", x: connections, y: "KiB",
			lines: append(r.both("idle-memory"), r.goal("idle-memory"))},
		{title: "Idle connections: time to open one more", x: connections, y: "µs",
			lines: r.both("idle-last")},
		{title: "Sessions: memory each", x: sessions, y: "MiB", lines: []curve{
			r.curve("sessions-memory", ours, "tlsd, with a share of shared memory",
				"line ours"),
			r.curve("sessions-dirty", ours, "private only", "line ours dashed")}},
		{title: "Opening sessions: median first call of the last 20", x: sessions, y: "ms",
			lines: []curve{r.curve("sessions-last", ours, ours, "line ours")}},
	}
	var drawn []panel
	for _, p := range panels {
		for _, l := range p.lines {
			if len(l.points) > 1 {
				drawn = append(drawn, p)
				break
			}
		}
	}
	if len(drawn) == 0 {
		return nil
	}
	const width, height, inRow = 450, 270, 2
	rows := (len(drawn) + inRow - 1) / inRow
	c := newChart(width*inRow, float64(rows*height+10), "How the cost of TLS through tlsd "+
		"grows with size, connections and sessions: "+r.Date)
	for i, p := range drawn {
		c.panel(p, float64(i%inRow*width), float64(i/inRow*height), width, height)
	}
	return c
}

// both returns the curves of in-process and of tlsd in a series.
func (r *results) both(series string) []curve {
	return []curve{r.curve(series, inProcess, inProcess, "line base"),
		r.curve(series, ours, ours, "line ours")}
}

func (r *results) curve(series, who, name, class string) curve {
	l := curve{name: name, class: class}
	for _, rr := range r.series(series) {
		if c := rr.contestant(who); c != nil && c.Median != nil {
			l.points = append(l.points, [2]float64{float64(rr.At), *c.Median})
		}
	}
	return l
}

// goal returns the curve of a row's goal of the kind "at most N times in-process": the values of
// in-process, multiplied by N. The curve is empty if the row has no such goal.
func (r *results) goal(row string) curve {
	for _, g := range goals {
		if g.row == row && g.than == inProcess && g.atMost != 0 {
			l := r.curve(row, inProcess, "goal", "line goal")
			for i := range l.points {
				l.points[i][1] *= g.atMost
			}
			return l
		}
	}
	return curve{}
}

func (c *chart) panel(p panel, left, top, width, height float64) {
	x := scale{log: true, lo: math.Inf(1), from: left + 78, to: left + width - 20}
	y := scale{log: p.log, lo: math.Inf(1), from: top + height - 44, to: top + 52}
	for _, l := range p.lines {
		for _, pt := range l.points {
			x.lo, x.hi = math.Min(x.lo, pt[0]), math.Max(x.hi, pt[0])
			y.lo, y.hi = math.Min(y.lo, pt[1]), math.Max(y.hi, pt[1])
		}
	}
	var ticks []float64
	if p.log {
		y.lo, y.hi, ticks = decades(y.lo, y.hi)
	} else {
		y.lo = 0
		y.hi, ticks = roundUp(y.hi)
	}
	c.text("head", "start", left+14, top+20, p.title)
	for _, v := range ticks {
		c.line("grid", x.from, y.at(v), x.to, y.at(v))
		c.text("small muted", "end", x.from-6, y.at(v)+4, plain(v))
	}
	base := 10.0
	if p.bytes {
		base = 16
	}
	for v := x.lo; v <= x.hi*1.01; v *= base {
		c.line("grid", x.at(v), y.from, x.at(v), y.from+4)
		c.text("small muted", "middle", x.at(v), y.from+16, p.number(v))
	}
	c.line("axis", x.from, y.from, x.to, y.from)
	c.text("small muted", "middle", (x.from+x.to)/2, y.from+34, p.x+", logarithmic")
	c.upright("small muted", left+20, (y.from+y.to)/2, p.y)

	at := x.from
	for _, l := range p.lines {
		if len(l.points) == 0 {
			continue
		}
		var path [][2]float64
		for _, pt := range l.points {
			path = append(path, [2]float64{x.at(pt[0]), y.at(pt[1])})
		}
		c.path(l.class, path)
		if l.name != "goal" {
			for _, pt := range path {
				c.dot(l.dots(), pt[0], pt[1])
			}
		}
		c.path(l.class, [][2]float64{{at, top + 34}, {at + 20, top + 34}})
		c.text("small", "start", at+25, top+38, l.name)
		at += 45 + widthOf(l.name)
	}
}

// dots returns the class of a curve's dots.
func (l curve) dots() string {
	if l.class == "line base" {
		return "base"
	}
	return "ours"
}

func (p panel) number(v float64) string {
	if p.bytes {
		return long(int(v))
	}
	return plain(v)
}
