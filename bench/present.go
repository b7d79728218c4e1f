package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// present makes tables and charts from the results of an earlier run.
func present(_ context.Context, o options) error {
	r, err := joinResults(strings.Split(o.from, ","))
	if err != nil {
		return err
	}
	if o.json != "" {
		if err := r.save(o.json); err != nil {
			return err
		}
	}
	return r.publish(o)
}

// loadResults reads what save has written.
func loadResults(file string) (*results, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the results: %w", err)
	}
	var r results
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("read the results: %s: %w", file, err)
	}
	return &r, nil
}

// joinResults reads the results of several runs. Each run after the first adds the rows that the
// runs before it lack.
func joinResults(files []string) (*results, error) {
	r, err := loadResults(files[0])
	if err != nil {
		return nil, err
	}
	for _, file := range files[1:] {
		more, err := loadResults(file)
		if err != nil {
			return nil, err
		}
		part := partOfRun{Date: more.Date, Plan: more.Plan, Rounds: more.Rounds,
			Load: more.Load}
		for _, rr := range more.Rows {
			if r.row(rr.Name) == nil {
				r.Rows = append(r.Rows, rr)
				part.Rows = append(part.Rows, rr.Name)
			}
		}
		r.Joined = append(r.Joined, part)
	}
	r.judge()
	return r, nil
}

// publish writes the tables and charts to the files that the options name. If they name none, it
// prints the tables.
func (r *results) publish(o options) error {
	if o.text == "" && o.charts == "" {
		r.print(os.Stdout)
		return nil
	}
	if o.charts != "" {
		if err := os.MkdirAll(o.charts, 0o755); err != nil {
			return fmt.Errorf("write the charts: %w", err)
		}
		for name, svg := range r.chartFiles() {
			if err := os.WriteFile(filepath.Join(o.charts, name), svg,
				0o644); err != nil {
				return fmt.Errorf("write the charts: %w", err)
			}
		}
	}
	if o.text == "" {
		return nil
	}
	old, err := os.ReadFile(o.text)
	if err != nil {
		return err
	}
	text, err := r.into(old)
	if err != nil {
		return fmt.Errorf("%s: %w", o.text, err)
	}
	return os.WriteFile(o.text, text, 0o644)
}

// opening and closing are the marks before and after a section in a text.
func opening(s section) string { return "<!-- bench: " + s.name + " -->\n" }

const closing = "<!-- /bench -->\n"

// The method into replaces the sections of a text by those of the results. A section without
// measurements stays as it is.
func (r *results) into(text []byte) ([]byte, error) {
	for _, s := range sections {
		before, rest, found := bytes.Cut(text, []byte(opening(s)))
		_, after, ended := bytes.Cut(rest, []byte(closing))
		if !found || !ended {
			return nil, fmt.Errorf("it lacks the marks %q and %q",
				strings.TrimSpace(opening(s)), strings.TrimSpace(closing))
		}
		if content := r.text(s); content != "" {
			text = bytes.Join([][]byte{before,
				[]byte(opening(s) + "\n" + content + "\n\n" + closing), after}, nil)
		}
	}
	return text, nil
}
