// Package plain makes foreign text fit for a log or a terminal. No character of a result ends a
// line, moves the cursor, or changes how other characters are shown. Only the function Line keeps
// tabs, and a newline at the end.
package plain

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Text cuts s after max bytes, escapes the hidden characters, and marks a cut with "…". So the
// result may be longer than max.
func Text(s string, max int) string {
	cut := len(s) > max
	if cut {
		s = s[:max]
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	if strings.IndexFunc(s, hidden) >= 0 {
		var b strings.Builder
		for _, r := range s {
			if hidden(r) {
				escape(&b, r)
			} else {
				b.WriteRune(r)
			}
		}
		s = b.String()
	}
	if cut {
		s += "…"
	}
	return s
}

// Line escapes the hidden characters in one entry of a log. It keeps tabs, and a newline at the
// end. The escapes are those of JSON, so an entry in JSON is valid JSON afterwards. If there is
// nothing to escape, Line returns entry itself.
func Line(entry []byte) []byte {
	text := strings.TrimSuffix(string(entry), "\n")
	if strings.IndexFunc(text, hiddenInLine) < 0 && utf8.ValidString(text) {
		return entry
	}
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(text, "\uFFFD") {
		if hiddenInLine(r) {
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
		} else {
			b.WriteRune(r)
		}
	}
	if len(text) < len(entry) {
		b.WriteByte('\n')
	}
	return []byte(b.String())
}

// hidden says whether a character is invisible, or changes how other characters are shown.
func hidden(r rune) bool {
	return !unicode.IsGraphic(r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r)
}

func hiddenInLine(r rune) bool { return r != '\t' && hidden(r) }

// escape writes a hidden character as Go writes it in a literal.
func escape(b *strings.Builder, r rune) {
	quoted := fmt.Sprintf("%+q", r)
	b.WriteString(quoted[1 : len(quoted)-1])
}
