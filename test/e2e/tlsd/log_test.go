package tlsd

import (
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"tlsd/internal/testkit"
)

// Code in a worker cannot write lines that look like audit lines, and cannot flood the log. The log
// has the number of entries that were left out.
func TestAWorkerNeitherForgesLinesNorFloodsTheLog(t *testing.T) {
	t.Parallel()
	const flood = 100000
	lib := faultyLibrary(t, "-DTALK="+strconv.Itoa(flood))
	for _, format := range []string{"json", "console"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			dir := testkit.Dir(t)
			log, sock := filepath.Join(dir, "log"), filepath.Join(dir, "s")
			startWith(t, nil, "exec 2>"+log+";", "--socket", sock, "--libssl", lib,
				"--log-format", format, "--spare", "0")
			if got := callAs(t, nil, sock, askBackend); !strings.Contains(got,
				`"result":"openssl"`) {
				t.Fatalf("tls.Backend: got %s, want openssl", got)
			}
			text := untilLogged(t, log,
				"the session, and the number of entries left out",
				func(text string) bool {
					return strings.Contains(text, "session ended") &&
						strings.Contains(text,
							"logged too much; entries were dropped")
				})
			if len(text) > flood {
				t.Errorf("the worker wrote %d entries, and the log has %d bytes: "+
					"too many were kept", flood, len(text))
			}
			for line := range strings.Lines(text) {
				if i := strings.IndexFunc(strings.TrimSuffix(line, "\n"),
					func(r rune) bool {
						return r != '\t' && !unicode.IsGraphic(r)
					}); i >= 0 {
					t.Errorf("a line of the log has a control character, "+
						"at %d: %q", i, line)
				}
				var entry map[string]any
				if format == "json" && (json.Unmarshal([]byte(line),
					&entry) != nil || entry["logger"] == "audit") {
					t.Errorf("a line of a worker is an audit line, or "+
						"no JSON: %q", line)
				}
				if format == "console" && strings.Contains(line, "\taudit") {
					t.Errorf("a line of a worker looks like an audit line: %q",
						line)
				}
			}
			if !strings.Contains(text, "said") {
				t.Error("the log lacks the worker's forged line, " +
					"so this test has checked nothing")
			}
		})
	}
}
