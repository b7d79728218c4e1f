package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/user"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"tlsd/rpc/client"
	"tlsd/rpc/wire"
)

// The rules of output: standard output has only results, and with --json also the errors of calls.
// Standard error has the rest. Text of a peer or of tlsd cannot move a terminal's cursor or forge a
// line. The bytes of Read are an exception: they are written unchanged. A failed write of a result
// is an error.

// printer prints results and failures of calls.
type printer struct{ *command }

// result prints a []byte unchanged, a string or a number as a line, and other JSON indented.
func (p printer) result(m *method, result any) error {
	if p.json {
		return p.line(struct {
			Method string `json:"method"`
			Result any    `json:"result"`
		}{m.name, result})
	}
	var out []byte
	switch r := result.(type) {
	case []byte:
		out = r
	case json.RawMessage:
		var s string
		var b strings.Builder
		if json.Unmarshal(r, &s) == nil {
			b.WriteString(clean(s))
			b.WriteByte('\n')
		} else {
			var indented bytes.Buffer
			if err := json.Indent(&indented, r, "", "  "); err != nil {
				return err
			}
			for line := range strings.SplitSeq(indented.String(), "\n") {
				b.WriteString(clean(line) + "\n")
			}
		}
		out = []byte(b.String())
	}
	return p.write(out)
}

// failure prints why a call failed. gaveUp: --timeout has ended the call.
func (p printer) failure(m *method, err error, gaveUp bool) error {
	why := err.Error()
	if gaveUp {
		why += fmt.Sprintf(" (--timeout %v)", p.timeout)
	}
	if !p.json {
		_, err := fmt.Fprintln(p.stderr, clean(why))
		return err
	}
	w := wire.Error{Code: wire.CodeInternal, Message: why,
		Data: &wire.ErrorData{Kind: client.KindInternal, Op: m.name}}
	var e *client.Error
	if errors.As(err, &e) {
		w.Code, w.Data = e.Code, &e.Data
	}
	return p.line(struct {
		Method string      `json:"method"`
		Error  *wire.Error `json:"error"`
	}{m.name, &w})
}

// line prints a value as one line of JSON.
func (c *command) line(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	return c.write(b.Bytes())
}

func (c *command) write(p []byte) error {
	if _, err := c.stdout.Write(p); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// clean makes control characters, and bytes that are not UTF-8, visible.
func clean(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case hidden(r) && r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case hidden(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// hidden says whether a terminal obeys a character and does not show it: a control character, or a
// format character that changes the direction of writing.
func hidden(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }

// reportNoDaemon prints each socket that was tried, why it failed, and how to mend that.
func reportNoDaemon(w io.Writer, none *client.NoDaemonError) {
	fmt.Fprintln(w, "tlsshim: there is no tlsd to talk to")
	for _, a := range none.Tried {
		d := diagnose(a.Path, a.Err)
		fmt.Fprintf(w, "  %s: %s\n      to mend it: %s\n", clean(a.Path), clean(d.text),
			clean(d.mend))
	}
	fmt.Fprintln(w, "tlsshim doctor says more.")
}

// cleanLines cleans each line of a text.
func cleanLines(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString(clean(strings.TrimSuffix(line, "\n")) + "\n")
	}
	return b.String()
}

// amount() writes a number of bytes for people, such as 1.5MiB.
func amount(n int64) string {
	v, unit := float64(n), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if v < 1024 {
			break
		}
		v, unit = v/1024, next
	}
	if unit == "B" {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%.1f%s", v, unit)
}

// age() writes a number of seconds for people, such as 2m05s.
func age(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// userName returns the name of a user, or the number if there is no name.
func userName(uid uint32) string {
	n := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(n); err == nil {
		return u.Username
	}
	return n
}
