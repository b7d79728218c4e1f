package main

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
)

// chartFiles returns the charts of the results. The keys are the names of the files.
func (r *results) chartFiles() map[string][]byte {
	files := map[string][]byte{}
	if c := r.chartRatios(); c != nil {
		files["ratios.svg"] = c.bytes()
	}
	if c := r.chartGrowth(); c != nil {
		files["growth.svg"] = c.bytes()
	}
	return files
}

// A chart is an SVG picture. Its colours follow the reader's choice of a light or dark screen. It
// has a background of its own, so it is readable on any page.
type chart struct {
	width, height float64
	title         string // for readers who cannot see it
	b             bytes.Buffer
}

// The classes of CSS: "ours" is for tlsd, "missed" for tlsd in a row where it misses a goal, and
// "base" for the contestant in-process. The class "others" is for the signs (triangle, square,
// cross) that stand for the proxies. A halo is the edge that separates a sign from a bar.
const style = `
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 11px }
.head { font-weight: 600 }
.muted { fill: #59636e }
.paper { fill: #ffffff }
.grid { stroke: #d8dee4; stroke-width: 1 }
.axis { stroke: #59636e; stroke-width: 1 }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
.ours { fill: #0969da } .line.ours { fill: none; stroke: #0969da }
.missed { fill: #0969da; fill-opacity: .25; stroke: #0969da; stroke-width: 1.5 }
.base { fill: #bc4c00 } .line.base { fill: none; stroke: #bc4c00 }
.others { fill: none; stroke: #59636e; stroke-width: 1.6 }
.halo { fill: none; stroke: #ffffff; stroke-width: 3.2 }
.goal { stroke: #1f2328; stroke-width: 2.5 }
.line.goal { stroke-width: 1.5; stroke-dasharray: 5 4 }
.dashed { stroke-dasharray: 2 3 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.muted { fill: #9198a1 }
.paper { fill: #0d1117 }
.grid { stroke: #30363d }
.axis { stroke: #9198a1 }
.ours { fill: #58a6ff } .line.ours { fill: none; stroke: #58a6ff }
.missed { fill: #58a6ff; stroke: #58a6ff }
.base { fill: #f0883e } .line.base { fill: none; stroke: #f0883e }
.others { stroke: #9198a1 }
.halo { stroke: #0d1117 }
.goal { stroke: #e6edf3 }
}
`

func newChart(width, height float64, title string) *chart {
	return &chart{width: width, height: height, title: title}
}

func (c *chart) bytes() []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out,
		`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %s %s" width="%s" height="%s" role="img">`+"\n<title>%s</title>\n<style>%s</style>\n",
		px(c.width), px(c.height), px(c.width), px(c.height), escape(c.title), style)
	fmt.Fprintf(&out, `<rect class="paper" width="%s" height="%s"/>`+"\n", px(c.width),
		px(c.height))
	out.Write(c.b.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}

func (c *chart) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(&c.b, `<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`+"\n", class, px(x1),
		px(y1), px(x2), px(y2))
}

func (c *chart) rect(class string, x, y, width, height float64) {
	fmt.Fprintf(&c.b, `<rect class="%s" x="%s" y="%s" width="%s" height="%s"/>`+"\n", class,
		px(x), px(y), px(width), px(height))
}

// text writes a text on the base line y. The parameter anchor says which point of the text is at x:
// start, middle or end.
func (c *chart) text(class, anchor string, x, y float64, text string) {
	fmt.Fprintf(&c.b, `<text class="%s" text-anchor="%s" x="%s" y="%s">%s</text>`+"\n", class,
		anchor, px(x), px(y), escape(text))
}

// upright writes a text that runs upwards. The middle of the text is at the point (x, y).
func (c *chart) upright(class string, x, y float64, text string) {
	fmt.Fprintf(&c.b,
		`<text class="%s" text-anchor="middle" transform="translate(%s %s) rotate(-90)">%s</text>`+"\n", class, px(x), px(y), escape(text))
}

func (c *chart) dot(class string, x, y float64) {
	fmt.Fprintf(&c.b, `<circle class="%s" cx="%s" cy="%s" r="3.5"/>`+"\n", class, px(x), px(y))
}

// path draws straight lines from point to point.
func (c *chart) path(class string, points [][2]float64) {
	var d []string
	for _, p := range points {
		d = append(d, px(p[0])+" "+px(p[1]))
	}
	fmt.Fprintf(&c.b, `<path class="%s" d="M%s"/>`+"\n", class, strings.Join(d, " L"))
}

// mark draws the sign of a proxy, or its halo.
func (c *chart) mark(class, who string, x, y float64) {
	const r = 4.5
	switch who {
	case "stunnel":
		c.path(class, [][2]float64{{x - r, y + r}, {x, y - r}, {x + r, y + r},
			{x - r, y + r}})
	case "haproxy":
		c.path(class, [][2]float64{{x - r, y - r}, {x + r, y - r}, {x + r, y + r},
			{x - r, y + r}, {x - r, y - r}})
	default:
		c.path(class, [][2]float64{{x - r, y - r}, {x + r, y + r}})
		c.path(class, [][2]float64{{x - r, y + r}, {x + r, y - r}})
	}
}

// widthOf estimates the width of a text of the class small. The reader's font is not known, so the
// estimate is for a wide font.
func widthOf(text string) float64 {
	width := 0.0
	for _, r := range text {
		if width += 6; unicode.IsDigit(r) {
			width++
		}
	}
	return width
}

// px writes a coordinate with at most one digit after the point.
func px(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// A scale maps values to coordinates.
type scale struct {
	lo, hi   float64 // values
	from, to float64 // coordinates
	log      bool
}

func (s scale) at(v float64) float64 {
	lo, hi := s.lo, s.hi
	if s.log {
		lo, hi, v = math.Log(lo), math.Log(hi), math.Log(v)
	}
	if hi == lo {
		return (s.from + s.to) / 2
	}
	return s.from + (v-lo)/(hi-lo)*(s.to-s.from)
}

// roundUp returns the end of a linear scale that begins at 0, and the values to write at the scale.
// The end is a round number, and is not below highest.
func roundUp(highest float64) (hi float64, ticks []float64) {
	step := math.Pow(10, math.Floor(math.Log10(highest/4)))
	for _, f := range []float64{1, 2, 2.5, 5, 10} {
		if highest/(step*f) <= 5 {
			step *= f
			break
		}
	}
	hi = math.Ceil(highest/step) * step
	for v := 0.0; v <= hi+step/2; v += step {
		ticks = append(ticks, v)
	}
	return hi, ticks
}

// decades returns the two ends of a logarithmic scale, which are powers of ten, and the values to
// write at the scale.
func decades(least, most float64) (lo, hi float64, ticks []float64) {
	lo, hi = math.Pow(10, math.Floor(math.Log10(least))),
		math.Pow(10, math.Ceil(math.Log10(most)))
	for v := lo; v <= hi*1.01; v *= 10 {
		ticks = append(ticks, v)
	}
	return lo, hi, ticks
}

// plain formats a number for an axis.
func plain(v float64) string { return strconv.FormatFloat(math.Round(v*1000)/1000, 'f', -1, 64) }
