package main

import (
	"encoding/xml"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// The type placed is a text of a chart, with an estimate of the rectangle that the text covers. The
// coordinate Y grows downwards, so bottom is larger than top.
type placed struct {
	Class     string  `xml:"class,attr"`
	Anchor    string  `xml:"text-anchor,attr"`
	Transform string  `xml:"transform,attr"`
	X         float64 `xml:"x,attr"`
	Y         float64 `xml:"y,attr"`
	Text      string  `xml:",chardata"`

	left, top, right, bottom float64
}

// place estimates the rectangle from the attributes. It assumes a wide font.
func (p *placed) place(t *testing.T) {
	const above, below = 9, 2 // distances from the base line
	width := widthOf(p.Text)
	if strings.Contains(p.Class, "head") { // larger, and bold
		width *= 4.0 / 3
	}
	if p.Transform != "" {
		if _, err := fmt.Sscanf(p.Transform, "translate(%g %g) rotate(-90)", &p.X,
			&p.Y); err != nil {
			t.Fatalf("the attribute transform of a text is %q, want "+
				"translate(X Y) rotate(-90): %v", p.Transform, err)
		}
		p.left, p.right = p.X-above, p.X+below
		p.top, p.bottom = p.Y-width/2, p.Y+width/2
		return
	}
	part := map[string]float64{"start": 0, "middle": 0.5, "end": 1}[p.Anchor]
	p.left, p.right = p.X-part*width, p.X+(1-part)*width
	p.top, p.bottom = p.Y-above, p.Y+below
}

func (p *placed) covers(q *placed) bool {
	return p.left < q.right && q.left < p.right && p.top < q.bottom && q.top < p.bottom
}

// No text of a chart is cut at the edge, and no two texts overlap.
func TestTextsOfAChartAreInsideItAndApart(t *testing.T) {
	t.Parallel()
	for name, svg := range committed(t).chartFiles() {
		var chart struct {
			Width  float64   `xml:"width,attr"`
			Height float64   `xml:"height,attr"`
			Texts  []*placed `xml:"text"`
		}
		if err := xml.Unmarshal(svg, &chart); err != nil {
			t.Fatalf("%s cannot be read as XML: %v", name, err)
		}
		if len(chart.Texts) < 40 {
			t.Errorf("%s: found only %d texts, want 40 or more; does the test still "+
				"find the texts?", name, len(chart.Texts))
		}
		for i, p := range chart.Texts {
			p.place(t)
			if p.left < 0 || p.right > chart.Width || p.top < 0 ||
				p.bottom > chart.Height {
				t.Errorf("%s: %q is cut at the edge", name, p.Text)
			}
			for _, q := range chart.Texts[:i] {
				if p.covers(q) {
					t.Errorf("%s: %q and %q overlap", name, p.Text, q.Text)
				}
			}
		}
	}
}

// In the chart of the ratios, a sign (triangle, square or cross) stands for a value of a proxy. The
// signs are grey. On a bar, a sign can be seen only if a halo lies under the sign.
func TestEachSignOverABarHasAHalo(t *testing.T) {
	t.Parallel()
	svg := string(committed(t).chartFiles()["ratios.svg"])
	_, rows, _ := strings.Cut(svg, ">socat</text>") // the last entry of the legend
	sign := regexp.MustCompile(`<path class="others" d="([^"]+)"/>`)
	signs := sign.FindAllStringSubmatchIndex(rows, -1)
	if len(signs) < 20 {
		t.Fatalf("found only %d signs in ratios.svg, want 20 or more; does the test still "+
			"find the signs?", len(signs))
	}
	for _, at := range signs {
		halo := `<path class="halo" d="` + rows[at[2]:at[3]] + `"/>`
		if !strings.Contains(rows[:at[0]], halo) {
			t.Errorf("no halo is under the sign %s", rows[at[2]:at[3]])
		}
	}
}

// If two rows of the results have the same series and the same number in the field At, the curve
// shows only the first row.
func TestACurveHasOnePointForEachNumber(t *testing.T) {
	t.Parallel()
	first, second, less := &rowResult{Series: "s", At: 1000}, &rowResult{Series: "s", At: 1000},
		&rowResult{Series: "s", At: 100}
	r := &results{Rows: []*rowResult{first, second, less}}
	got := r.series("s")
	if len(got) != 2 || got[0] != less || got[1] != first || got[1] != r.firstAt("s", 1000) {
		t.Errorf("the series has %d rows; want the row at 100, then the first at 1000",
			len(got))
	}
}
