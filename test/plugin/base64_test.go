package plugin

import (
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The plugin decodes and encodes base64 exactly as the strict form of encoding/base64 does. The
// texts are valid, or have a changed or a missing character. Their lengths vary.
func TestBase64IsThatOfGo(t *testing.T) {
	t.Parallel()
	const seed = 20261129
	random := rand.New(rand.NewPCG(seed, seed))
	texts := []string{"=", "==", "===", "====", "A===", "AA=A", "=AAA", "AAAA====", "AA==AAAA",
		"AAA=AA==", "AB==", "AAB=", "AAAA=", "A", "AA", "AAA"}
	pool := "AZaz09+/=-_ .\x7f\xff"
	for n := range 300 {
		data := make([]byte, n%70)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		text := base64.StdEncoding.EncodeToString(data)
		texts = append(texts, text)
		if text != "" {
			i := random.IntN(len(text))
			texts = append(texts, text[:i]+pool[random.IntN(len(pool)):][:1]+text[i+1:],
				text[1:])
		}
	}
	exe := compile(t, asan.cc, "base64check",
		append(append([]string{"-I" + sources}, strict...),
			append(asan.flags, "testdata/base64check.c", sources+"/base64.c")...)...)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), asan.env...)
	cmd.Stdin = strings.NewReader(strings.Join(texts, "\n") + "\n")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(texts) {
		t.Fatalf("base64check gives %d answers to %d texts", len(lines), len(texts))
	}
	valid := 0
	for i, text := range texts {
		want := "no"
		if data, err := base64.StdEncoding.Strict().DecodeString(text); err == nil {
			want = hex.EncodeToString(data) + " " + text + " 1"
			valid++
		}
		if lines[i] != want {
			t.Errorf("base64check answers %q with %q; want %q", text, lines[i], want)
		}
	}
	if valid < 300 || valid > len(texts)-200 {
		t.Errorf("%d of %d texts are valid; want at least 300 valid and 200 invalid ones",
			valid, len(texts))
	}
}
