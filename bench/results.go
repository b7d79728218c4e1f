package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// results has everything that the benchmark prints and writes as JSON.
type results struct {
	Date     string            `json:"date"`
	Plan     string            `json:"plan"` // full or quick
	Rounds   int               `json:"rounds"`
	Seconds  float64           `json:"seconds"` // duration of the whole run
	Machine  machineInfo       `json:"machine"`
	Load     load              `json:"load"`
	Versions map[string]string `json:"versions"`
	Rows     []*rowResult      `json:"rows"`
	Goals    []goalResult      `json:"goals"`
	// Joined names the other runs from which some of the rows come.
	Joined []partOfRun `json:"joined,omitempty"`

	failures int
}

type partOfRun struct {
	Date   string   `json:"date"`
	Plan   string   `json:"plan"`
	Rounds int      `json:"rounds"`
	Load   load     `json:"load"`
	Rows   []string `json:"rows"`
}

type rowResult struct {
	Name        string `json:"name"`
	Title       string `json:"title"`
	Unit        string `json:"unit"`
	LowerBetter bool   `json:"lowerIsBetter"`
	// Group is "" for the comparison of the contestants, "hop" for the steps (hops.go), and
	// "growth" for how the cost grows (growth.go).
	Group string `json:"group,omitempty"`
	// Rows of one Series differ in At: the size, or the number of connections or sessions.
	Series      string              `json:"series,omitempty"`
	At          int                 `json:"at,omitempty"`
	Contestants []*contestantResult `json:"contestants"`
}

type contestantResult struct {
	Name   string `json:"name"`
	Absent bool   `json:"absent,omitempty"`
	// One sample for each time that the contestant did the work; null if that failed.
	Samples []*float64 `json:"samples"`
	Median  *float64   `json:"median"`
	// Each sample is divided by the sample of the row's first contestant in the same round.
	// OfBaseline is the median of these ratios.
	OfBaseline *float64 `json:"ofBaseline,omitempty"`
	// CPU time in µs for one MB, one round trip or one connection; medians.
	CPU    *cpuResult `json:"cpuMicroseconds,omitempty"`
	Errors []string   `json:"errors,omitempty"`

	cpu [3][]float64
}

type cpuResult struct {
	Client float64 `json:"client"`
	Helper float64 `json:"helper"` // tlsd or the proxy
	Sink   float64 `json:"sink"`
}

func (c *cpuResult) sum() float64 { return c.Client + c.Helper + c.Sink }

// runRounds runs the works in rounds. In each work, one contestant runs after the other.
func (a *arena) runRounds(ctx context.Context, p plan, list []work) *results {
	r := &results{Plan: p.name}
	rows := make([][]*rowResult, len(list))
	for i, w := range list {
		for _, row := range w.rows {
			rr := &rowResult{Name: row.name, Title: row.title, Unit: row.unit,
				LowerBetter: row.lower,
				Group:       w.group, Series: row.series, At: row.at}
			for _, who := range w.who {
				rr.Contestants = append(rr.Contestants,
					&contestantResult{Name: who})
			}
			rows[i] = append(rows[i], rr)
			r.Rows = append(r.Rows, rr)
		}
	}
	start := time.Now()
	// took[true] is how long the latest round with all works took, and took[false] how long the
	// latest round with a part of them took.
	took := map[bool]time.Duration{}
	for round := range p.rounds {
		began := time.Now()
		for i, w := range list {
			if round%w.every != 0 {
				continue
			}
			for range w.times {
				for _, k := range order(len(w.who), round) {
					if ctx.Err() != nil {
						return r
					}
					a.runOnce(ctx, w, k, rows[i], r)
				}
			}
		}
		r.Rounds = round + 1
		took[round%p.every == 0] = time.Since(began)
		say("round %d of %d took %.0f s", r.Rounds, p.rounds, time.Since(began).Seconds())
		if left := p.budget - time.Since(start); p.budget > 0 && r.Rounds < p.rounds &&
			took[r.Rounds%p.every == 0] > left {
			say("the machine is slow or busy: only %d rounds fit into %v; "+
				"-rounds %d runs all of them", r.Rounds, p.budget, p.rounds)
			break
		}
	}
	for _, rr := range r.Rows {
		rr.conclude()
	}
	return r
}

// order returns the order of n contestants in a round. After every two rounds the order is rotated
// by one contestant, and in every second round it is reversed. So no contestant always runs after
// the same other contestant.
func order(n, round int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = (i + round/2) % n
	}
	if round%2 == 1 {
		slices.Reverse(order)
	}
	return order
}

// runOnce lets the contestant w.who[k] do the work once, and appends the samples to rows.
func (a *arena) runOnce(ctx context.Context, w work, k int, rows []*rowResult, r *results) {
	who := w.who[k]
	o, ok, err := w.run(ctx, a, who)
	if err != nil && ctx.Err() == nil {
		r.failures++
		say("FAILED: %s, %s: %v", rows[0].Name, who, err)
	}
	for i, row := range w.rows {
		c := rows[i].Contestants[k]
		switch {
		case err != nil:
			c.Errors = append(c.Errors, err.Error())
			c.Samples = append(c.Samples, nil)
		case !ok:
			c.Absent = true
		default:
			v := row.of(o)
			c.Samples = append(c.Samples, &v)
			if row.per > 0 {
				for j, d := range []time.Duration{o.client, o.helper, o.sink} {
					c.cpu[j] = append(c.cpu[j], d.Seconds()*1e6/o.units*row.per)
				}
			}
		}
	}
}

// conclude computes the medians from the samples.
func (rr *rowResult) conclude() {
	base := rr.Contestants[0]
	for _, c := range rr.Contestants {
		c.Median = median(measured(c.Samples))
		if c != base {
			c.OfBaseline = medianRatio(c.Samples, base.Samples)
		}
		if len(c.cpu[0]) > 0 {
			c.CPU = &cpuResult{*median(c.cpu[0]), *median(c.cpu[1]), *median(c.cpu[2])}
		}
	}
}

func (rr *rowResult) contestant(name string) *contestantResult {
	for _, c := range rr.Contestants {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func (r *results) row(name string) *rowResult {
	for _, rr := range r.Rows {
		if rr.Name == name {
			return rr
		}
	}
	return nil
}

func measured(samples []*float64) []float64 {
	var v []float64
	for _, s := range samples {
		if s != nil {
			v = append(v, *s)
		}
	}
	return v
}

// median returns nil if there are no values.
func median(v []float64) *float64 {
	if len(v) == 0 {
		return nil
	}
	v = slices.Sorted(slices.Values(v))
	m := (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	return &m
}

// medianRatio divides the samples of a by those of b, round by round, and returns the median of
// these ratios. A round without one of the samples is left out.
func medianRatio(a, b []*float64) *float64 {
	var v []float64
	for i := range min(len(a), len(b)) {
		if a[i] != nil && b[i] != nil && *b[i] != 0 {
			v = append(v, *a[i] / *b[i])
		}
	}
	return median(v)
}

func (r *results) save(file string) error {
	out, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	if err := os.WriteFile(file, append(out, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the results: %w", err)
	}
	return nil
}

// digits formats a number with two digits after the point, one from 10 on, and none from 100 on.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
