package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tlsd/internal/testkit"
)

// The matrix counts what has run. What has not run is never a pass.

func TestTestsAreCounted(t *testing.T) {
	t.Parallel()
	const header = `{"Action":"start"}` + "\n"
	for name, c := range map[string]struct {
		events string
		want   result
		shown  string // a text that must be in the output
		hidden string // a text that must not be in the output
	}{
		"all three": {`{"Action":"run","Test":"A"}
{"Action":"output","Test":"A","Output":"a says\n"}
{"Action":"output","Test":"A","Output":"    a_test.go:5: in figures: 7 cases\n"}
{"Action":"pass","Test":"A"}
{"Action":"run","Test":"B"}
{"Action":"run","Test":"B/1"}
{"Action":"output","Test":"B/1","Output":"b says\n"}
{"Action":"fail","Test":"B/1"}
{"Action":"fail","Test":"B"}
{"Action":"run","Test":"C"}
{"Action":"output","Test":"C","Output":"    c_test.go:7: no tool\n"}
{"Action":"output","Test":"C","Output":"--- SKIP: C (0.00s)\n"}
{"Action":"skip","Test":"C"}
{"Action":"fail"}
`, result{passed: 1, failed: 2, skipped: 1}, "7 cases\nb says\nskipped 1: no tool\n", "a says"},
		"a crash in the middle": {`{"Action":"run","Test":"A"}
{"Action":"pass","Test":"A"}
{"Action":"run","Test":"B"}
{"Action":"output","Test":"B","Output":"SIGSEGV\n"}
`, result{passed: 1, failed: 1}, "SIGSEGV", "A"},
		"nothing": {"", result{}, "", "A"},
		"output of no test": {`{"Action":"output","Output":"goleak: found\n"}
{"Action":"output","Output":"FAIL\n"}
`, result{}, "goleak: found\n", "FAIL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var shown strings.Builder
			got, err := tally(strings.NewReader(header+c.events), &shown, false)
			if got != c.want || err != nil {
				t.Errorf("tally counts %+v, %v; want %+v and no error", got, err,
					c.want)
			}
			if !strings.Contains(shown.String(), c.shown) ||
				strings.Contains(shown.String(), c.hidden) {
				t.Errorf("tally shows %q; want %q in it, and not %q",
					shown.String(), c.shown, c.hidden)
			}
		})
	}
	if _, err := tally(strings.NewReader("what is this\n"), new(strings.Builder),
		false); err == nil {
		t.Error("tally takes a line that is no event; want an error")
	}
}

func TestOnlyWhatHasRunCanPass(t *testing.T) {
	t.Parallel()
	missing := result{missing: "sid has another version"}
	for name, c := range map[string]struct {
		results []result
		want    string // a part of the error's text; empty: no error
	}{
		"passed":             {[]result{{passed: 5}, {passed: 1, skipped: 2}}, ""},
		"passed and missing": {[]result{{passed: 5}, missing}, ""},
		"failed": {[]result{{passed: 5, failed: 1}, {failed: 2}},
			"3 checks have failed"},
		"all missing":          {[]result{missing, missing}, "nothing was run"},
		"all tests skip":       {[]result{{skipped: 4}}, "nothing was run"},
		"failed, rest missing": {[]result{missing, {failed: 1}}, "1 checks have failed"},
	} {
		var tb table
		for i, r := range c.results {
			tb.add([]string{"1.1.1", "3.0"}[i], "daemon", r)
		}
		err := tb.verdict()
		if (err == nil) != (c.want == "") || err != nil &&
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the verdict is %v; want an error with %q (empty: none)", name,
				err, c.want)
		}
	}
}

func TestTheTableTellsWhatIsMissing(t *testing.T) {
	t.Parallel()
	var tb table
	tb.add("3.0", "daemon", result{passed: 12, failed: 1, skipped: 3})
	tb.add("3.6", "daemon", result{missing: "sid has OpenSSL 3.7.0 now"})
	var out strings.Builder
	tb.print(&out)
	for _, want := range []string{"OpenSSL   daemon\n", "3.0       12/1/3\n",
		"3.6       SKIPPED\n", "SKIPPED: 3.6, daemon: sid has OpenSSL 3.7.0 now\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table must have the text %q:\n%s", want, out.String())
		}
	}
}

func TestVersionsAreFoldersOrReasons(t *testing.T) {
	t.Parallel()
	got, err := parseVersions([]string{"3.0=/somewhere/3.0", "3.6=-no such release"})
	if err != nil || len(got) != 2 || got[0] != (version{name: "3.0", dir: "/somewhere/3.0"}) ||
		got[1] != (version{name: "3.6", why: "no such release"}) {
		t.Errorf("a folder and a reason are taken for %+v, %v", got, err)
	}
	for _, bad := range [][]string{nil, {"3.0"}, {"3.0="}, {"=/x"}, {"3.0=-"}} {
		if _, err := parseVersions(bad); err == nil {
			t.Errorf("parseVersions takes %q; want an error", bad)
		}
	}
}

// The check finds a wrong type, a wrong number of arguments, a missing symbol, and a wrong value of
// a constant. It skips symbols that only other versions have.
func TestTheTableIsComparedWithHeaders(t *testing.T) {
	t.Parallel()
	testkit.Tool(t, "cc")
	real, err := os.ReadFile("../../../" + abi)
	if err != nil {
		t.Fatal(err)
	}
	// The macros of the real table, with a header and lines of this test.
	text := string(real)
	start, end := strings.Index(text, "#ifdef LIST_ONLY"), strings.Index(text, "#define V3")
	if start < 0 || end < start {
		t.Fatalf("%s has no macros where this test looks for them", abi)
	}
	const header = "int good(const char *, long);\nlong verify(void);\n#define NUMBER 294\n"
	const lines = "FUNCTION(int, good, (const char *, long))\nCONSTANT(number, 294, " +
		"NUMBER)\n#if 0\nFUNCTION(int, other, (void))\n#endif\n"
	for name, c := range map[string]struct {
		line string
		want result
	}{
		"right": {"FUNCTION(long, verify, (void))", result{passed: 3, skipped: 1}},
		"an int for a long": {"FUNCTION(int, verify, (void))",
			result{passed: 2, failed: 1, skipped: 1}},
		"a missing argument": {"FUNCTION(long, verify, (int))",
			result{passed: 2, failed: 1, skipped: 1}},
		"no such symbol": {"FUNCTION(long, absent, (void))",
			result{passed: 2, failed: 1, skipped: 1}},
		"another value": {"CONSTANT(wrong, 293, NUMBER)",
			result{passed: 2, failed: 1, skipped: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "abi.c")
			text := header + text[start:end] + lines + c.line + "\n"
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, said := checkHeaders(t.Context(), text,
				[]string{"-std=c11", "-Wall", "-Werror", file})
			if got != c.want || (said == "") != (c.want.failed == 0) {
				t.Errorf("the check counts %+v, want %+v; it says:\n%s", got,
					c.want, said)
			}
		})
	}
}
