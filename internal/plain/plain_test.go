package plain

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

// dangerous has characters that end a line, control a terminal, reverse the direction of text, or
// are not visible. It also has a byte that is not UTF-8.
const dangerous = "a\nb\rc\x1b[2Jd\u009b2Je\x7ff\tg\u202eh\u2066i\u2028j" +
	"\u200bk\U000e0041l\xffm\x00n"

// Text makes hidden characters visible, keeps all other characters, and cuts a long text.
func TestTextShowsWhatIsHidden(t *testing.T) {
	t.Parallel()
	want := `a\nb\rc\x1b[2Jd\u009b2Je\x7ff\tg\u202eh\u2066i\u2028j\u200bk\U000e0041l` +
		"\uFFFD" + `m\x00n`
	if got := Text(dangerous, 1000); got != want {
		t.Errorf("the text has become %q; want %q", got, want)
	}
	if got := Text("häßlich 漢字", 1000); got != "häßlich 漢字" {
		t.Errorf("a text without hidden characters has become %q; want no change", got)
	}
	if got := Text(strings.Repeat("x", 11), 10); got != strings.Repeat("x", 10)+"…" {
		t.Errorf("with the limit 10, a text of 11 bytes has become %q; want 10 bytes and …",
			got)
	}
}

// Line escapes hidden characters as JSON does. So the result is JSON with the same texts.
func TestLinesOfJSONStayJSON(t *testing.T) {
	t.Parallel()
	in, err := json.Marshal(map[string]string{"text": dangerous})
	if err != nil {
		t.Fatal(err)
	}
	line := Line(append(in, '\n'))
	if i := strings.IndexFunc(string(line),
		func(r rune) bool { return !unicode.IsGraphic(r) }); i != len(line)-1 {
		t.Errorf("the first hidden character is at byte %d of %d; want only the line feed "+
			"at the end: %q", i, len(line), line)
	}
	var before, after map[string]string
	if json.Unmarshal(in, &before) != nil || json.Unmarshal(line, &after) != nil ||
		before["text"] != after["text"] {
		t.Errorf("the text %q has become %q", before["text"], after["text"])
	}
}

// Line escapes each line feed except one at the end, so that its result is one line.
func TestALineIsOneLine(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"ERROR\tfine\n":         "ERROR\tfine\n",
		"ERROR\ta\nINFO\tb\n":   `ERROR` + "\t" + `a\u000aINFO` + "\tb\n",
		"a\x1b[31m\u202e\xff\n": `a\u001b[31m\u202e` + "\uFFFD\n",
		"no end":                "no end",
		"two\n\n":               `two\u000a` + "\n",
		"\U000e0041 of two\n":   `\udb40\udc41 of two` + "\n",
		"":                      "",
		"häßlich 漢字 \u2026\n":   "häßlich 漢字 \u2026\n",
	} {
		if got := string(Line([]byte(in))); got != want {
			t.Errorf("%q has become %q; want %q", in, got, want)
		}
	}
}
