package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const theText = "../BENCHMARKS.md"

// committed returns the results in results.json.
func committed(t *testing.T) *results {
	t.Helper()
	r, err := loadResults("results.json")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The tables of BENCHMARKS.md have the figures of bench/results.json, and no section is empty.
func TestTheTablesOfTheTextAreThoseOfTheResults(t *testing.T) {
	t.Parallel()
	have, err := os.ReadFile(theText)
	if err != nil {
		t.Fatal(err)
	}
	want, err := committed(t).into(have)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Errorf("%s has other tables than bench/results.json: run make bench-text "+
			"RESULTS=bench/results.json", theText)
	}
	for _, s := range sections {
		_, rest, _ := strings.Cut(string(have), opening(s))
		if content, _, _ := strings.Cut(rest, closing); strings.TrimSpace(content) == "" {
			t.Errorf("%s: the section %s is empty", theText, s.name)
		}
	}
}

// The charts have the figures of bench/results.json, and BENCHMARKS.md shows each of them.
func TestTheChartsAreThoseOfTheResults(t *testing.T) {
	t.Parallel()
	charts := committed(t).chartFiles()
	if len(charts) != 2 {
		t.Errorf("the results make %d charts, want 2", len(charts))
	}
	shown, err := os.ReadFile(theText)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range charts {
		have, err := os.ReadFile(filepath.Join("charts", name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(have, want) {
			t.Errorf("charts/%s differs from bench/results.json: run make bench-text "+
				"RESULTS=bench/results.json", name)
		}
		if !bytes.Contains(shown, []byte("](bench/charts/"+name+")")) {
			t.Errorf("%s does not show charts/%s", theText, name)
		}
	}
}

// Each chart is well-formed XML, has colours for light and dark screens, and names its units, the
// goal and the kind of its scale.
func TestChartsAreXMLWithBothColourSchemesAndUnits(t *testing.T) {
	t.Parallel()
	for name, svg := range committed(t).chartFiles() {
		for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s is not well-formed XML: %v", name, err)
			}
		}
		for _, want := range []string{"prefers-color-scheme: dark", "MB/s", "µs", "KiB",
			"goal", "in-process", "logarithmic"} {
			if !bytes.Contains(svg, []byte(want)) {
				t.Errorf("%s lacks %q", name, want)
			}
		}
		if bytes.Contains(svg, []byte("NaN")) || bytes.Contains(svg, []byte("Inf")) {
			t.Errorf("%s has a coordinate that is no number", name)
		}
	}
}

// If a text lacks the mark where a table begins, the error names the mark.
func TestATextWithoutAMarkIsRefused(t *testing.T) {
	t.Parallel()
	r := committed(t)
	if _, err := r.into([]byte("# no marks\n")); err == nil ||
		!strings.Contains(err.Error(), "<!-- bench: run -->") {
		t.Errorf("the error is %v; want one that names the missing mark", err)
	}
}

// A run may measure only some groups. In the text, the sections of the other groups stay as they
// are.
func TestASectionThatWasNotMeasuredStaysAsItIs(t *testing.T) {
	t.Parallel()
	have, err := os.ReadFile(theText)
	if err != nil {
		t.Fatal(err)
	}
	r := committed(t)
	rows := r.Rows
	r.Rows = nil
	for _, rr := range rows {
		if rr.Group != "growth" && rr.Series == "" {
			r.Rows = append(r.Rows, rr)
		}
	}
	got, err := r.into(have)
	if err != nil {
		t.Fatal(err)
	}
	section := func(b []byte, name string) string {
		_, rest, _ := strings.Cut(string(b), "<!-- bench: "+name+" -->")
		content, _, _ := strings.Cut(rest, closing)
		return content
	}
	if section(got, "growth") != section(have, "growth") {
		t.Error("the section growth has changed, although nothing was measured for it")
	}
	if section(got, "speeds") == section(have, "speeds") {
		t.Error("the section speeds is the same, although the results lack some of its " +
			"rows")
	}
}
