package main

// A goal is a limit for tlsd's result in a row. The limit is a multiple of another result, or a
// value.
type goal struct {
	row string
	// The contestant to compare with; anyProxy: the proxy with the best median; "": no
	// contestant, and the limit is a value in the row's unit.
	than string
	// The row to compare with; "": the goal's own row.
	thanRow string
	// Either atLeast or atMost is set.
	atLeast float64
	atMost  float64
}

const anyProxy = "best proxy"

var goals = []goal{
	{row: "write-4k", than: inProcess, atLeast: 1.2},
	{row: "write-4k", than: anyProxy, atLeast: 1.15},
	{row: "write-64k", than: inProcess, atLeast: 0.95},
	{row: "write-64k", than: anyProxy, atLeast: 1.15},
	{row: "write-1m", than: inProcess, atLeast: 1.05},
	{row: "write-1m", than: anyProxy, atLeast: 1.15},
	{row: "read-16k", than: inProcess, atLeast: 0.9},
	{row: "read-16k", than: anyProxy, atLeast: 1.15},
	{row: "read-64k", than: inProcess, atLeast: 0.9},
	{row: "read-64k", than: anyProxy, atLeast: 1.15},
	{row: "pingpong-64", than: inProcess, atMost: 1.15},
	{row: "pingpong-64", than: anyProxy, atMost: 0.85},
	{row: "pingpong-16k", than: inProcess, atMost: 1.15},
	{row: "pingpong-16k", than: anyProxy, atMost: 0.85},
	{row: "beside-64", than: anyProxy, atMost: 1},
	{row: "connect", than: inProcess, atLeast: 0.8},
	{row: "connect", than: anyProxy, atLeast: 1},
	{row: "busy-10", than: anyProxy, atLeast: 1.1},
	{row: "busy-100", than: anyProxy, atLeast: 1.1},
	{row: "busy-1000", than: anyProxy, atLeast: 1.1},
	{row: "call", than: socketpair, atMost: 1.5},
	{row: "idle-memory", than: inProcess, atMost: 1.4},
	// The last connections must open as fast as the first ones. 1.25 leaves room for noise.
	{row: "idle-last", than: ours, thanRow: "idle-first", atMost: 1.25},
	{row: "first-call", atMost: 3},
}

type goalResult struct {
	Row  string `json:"row"`
	Than string `json:"than,omitempty"`
	// The median of the ratios, or tlsd's own median if there is no contestant to compare with.
	Value   *float64 `json:"value"`
	AtLeast float64  `json:"atLeast,omitempty"`
	AtMost  float64  `json:"atMost,omitempty"`
	// met, not met, or open: something that the goal needs was not measured.
	Verdict string `json:"verdict"`
}

// judge compares the goals of the measured rows with the results.
func (r *results) judge() {
	r.Goals = nil
	for _, g := range goals {
		rr := r.row(g.row)
		if rr == nil {
			continue
		}
		res := goalResult{Row: g.row, Than: g.than, AtLeast: g.atLeast, AtMost: g.atMost,
			Verdict: "open"}
		tlsd := rr.contestant(ours)
		other := rr
		if g.thanRow != "" {
			other = r.row(g.thanRow)
			res.Than = g.thanRow
		}
		var than *contestantResult
		switch {
		case other == nil:
		case g.than == anyProxy:
			if than = other.bestProxy(); than != nil {
				res.Than += " (" + than.Name + ")"
			}
		case g.than != "":
			than = other.contestant(g.than)
		}
		switch {
		case g.than == "":
			res.Value = tlsd.Median
		case than != nil:
			res.Value = medianRatio(tlsd.Samples, than.Samples)
		}
		if v := res.Value; v != nil {
			res.Verdict = "not met"
			if g.atLeast > 0 && *v >= g.atLeast || g.atMost > 0 && *v <= g.atMost {
				res.Verdict = "met"
			}
		}
		r.Goals = append(r.Goals, res)
	}
}

// bestProxy returns the proxy with the best median, or nil if no proxy was measured.
func (rr *rowResult) bestProxy() *contestantResult {
	var best *contestantResult
	for _, name := range proxyNames {
		c := rr.contestant(name)
		if c == nil || c.Median == nil {
			continue
		}
		if best == nil || rr.LowerBetter == (*c.Median < *best.Median) {
			best = c
		}
	}
	return best
}
