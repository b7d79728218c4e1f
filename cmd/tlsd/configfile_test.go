package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// configOf writes a configuration file and returns its path.
func configOf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tlsd.toml")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// A flag has precedence over an environment variable, the variable over the configuration file, and
// the file over the default. The options say where each value comes from (their field origin).
func TestFlagOverEnvironmentOverFileOverDefault(t *testing.T) {
	t.Parallel()
	file := configOf(t, "# ours\nspare = 5\nmax-calls = 6\nmax-pending = 7\n")
	o, err := parseOptions([]string{"--spare", "2"},
		[]string{"TLSD_SPARE=3", "TLSD_MAX_CALLS=4", "TLSD_CONFIG=" + file}, none)
	if err != nil {
		t.Fatal(err)
	}
	if o.spare != 2 || o.limits.Calls != 4 || o.limits.Pending != 7 ||
		o.limits.Handles != 65536 {
		t.Errorf("the settings are %+v; want spare 2, max-calls 4, max-pending 7, and the "+
			"default max-handles", o)
	}
	want := map[string]string{"spare": "--spare", "max-calls": "TLSD_MAX_CALLS",
		"max-pending": file + ":4", "config": "TLSD_CONFIG"}
	if !reflect.DeepEqual(o.origin, want) {
		t.Errorf("the values come from %v, want %v", o.origin, want)
	}
}

// In the configuration file, a number needs no quotes, other values are strings, and a list is an
// array or a string with commas.
func TestTheFileHasNumbersTextsAndLists(t *testing.T) {
	t.Parallel()
	file := configOf(t, `
max-sessions = 12
max-message = 4096
max-memory = "1GiB"
drain-timeout = "1m30s"
socket-mode = "0640"
allow-uid = [7, "root"]
allow-gid = "8,9"
readable = ["/usr", "/etc"]`)
	o, err := parse(nil, "--config", file)
	if err != nil {
		t.Fatal(err)
	}
	if o.maxSessions != 12 || o.messages.Message != 4096 ||
		o.maxMemory != 1<<30 || o.drainTimeout != 90*time.Second || o.socketMode != 0o640 ||
		!reflect.DeepEqual(o.allowUID, []uint32{7, 0}) ||
		!reflect.DeepEqual(o.allowGID, []uint32{8, 9}) ||
		!reflect.DeepEqual(o.readable, []string{"/usr", "/etc"}) {
		t.Errorf("the settings differ from those in the file: %+v", o)
	}
	// A flag replaces the file's list.
	o, err = parse(nil, "--config", file, "--allow-uid", "3")
	if err != nil || !reflect.DeepEqual(o.allowUID, []uint32{3}) {
		t.Errorf("the flag --allow-uid 3 gives %v, %v; want [3]", o.allowUID, err)
	}
}

// Without --config, tlsd reads the system's configuration file. "--config none" means no file.
func TestTheSystemsFileIsReadUnlessAnotherIsNamed(t *testing.T) {
	t.Parallel()
	system, own := configOf(t, "spare = 3"), configOf(t, "spare = 4")
	for _, tt := range []struct {
		args []string
		want int
	}{{nil, 3}, {[]string{"--config", own}, 4}, {[]string{"--config", "none"}, 1}} {
		o, err := parseOptions(tt.args, nil, system)
		if err != nil || o.spare != tt.want {
			t.Errorf("with the flags %q, spare is %d, %v; want %d", tt.args, o.spare,
				err, tt.want)
		}
	}
}

// If the configuration file has a mistake, the error says where and what it is. If tlsd cannot use
// the file at all, the error says why.
func TestAMistakeInTheFileIsExplained(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"spare = 1\nmax-sesions = 3", `tlsd.toml:2: max-sesions is not known; did you mean max-sessions?`},
		{"config = \"/x\"", `tlsd.toml:1: config is not known`},
		{"check = true", `tlsd.toml:1: check is not known`},
		{"[limits]\nmax-calls = 3", `tlsd.toml:1: limits is not known`},
		{"spare = 1\n\nworkers = \"many\"", `tlsd.toml:3: invalid value "many" of workers: want a whole number from 1 to 1024`},
		{"workers = [1, 2]", `tlsd.toml:1: workers: want one value, not a list`},
		{"workers = 1.5", `tlsd.toml:1: workers: want a string in quotes, such as "30s", or a whole number`},
		{"confine = true", `tlsd.toml:1: confine: want a string in quotes`},
		{"allow-uid = [[1]]", `tlsd.toml:1: allow-uid: want a list of strings or whole numbers`},
		{"drain-timeout = 30s", `tlsd.toml:1: `},
		{"spare = 1\nspare = 2", `tlsd.toml:2: `},
		{"confine = \"off\"\nreadable = [\"/usr\"]", `--readable needs --confine=auto`},
	} {
		_, err := parse(nil, "--config", configOf(t, tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("the configuration file %q gives the error %v; want %q", tt.text,
				err, tt.want)
		}
	}
	const absent = "configuration file: /none/such: /none: no such file"
	if _, err := parse(nil, "--config", "/none/such"); err == nil ||
		!strings.Contains(err.Error(), absent) {
		t.Errorf("a file that is not there: %v; want %q", err, absent)
	}
	open := configOf(t, "spare = 2")
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := parse(nil, "--config", open); err == nil ||
		!strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("a file that anybody can write to: %v; want the advice chmod go-w", err)
	}
}

// --help and --version work even if the other settings are wrong.
func TestHelpNeedsNoGoodSettings(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"--help", "--version", "-h"} {
		bad := []string{"TLSD_SPARE=many", "TLSD_NOTHING=1"}
		if _, err := parse(bad, flag, "--config", "/none/such"); err != nil {
			t.Errorf("%s fails because other settings are wrong: %v", flag, err)
		}
	}
}

// If tlsd reads the output of --print-config as its configuration file, it has the same settings.
func TestPrintedSettingsCanBeReadAgain(t *testing.T) {
	t.Parallel()
	first, err := parse([]string{"TLSD_MAX_MESSAGE=3MiB"}, "--socket", "/x/y", "--allow-uid",
		"1,2", "--readable", "/usr,/etc", "--drain-timeout", "12h",
		"--max-memory", "100000000", "--libssl", `/with "quotes"`, "--ready-fd", "5", "--accept-timeout", "0")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	printConfig(&b, first)
	second, err := parse(nil, "--config", configOf(t, b.String()))
	if err != nil {
		t.Fatalf("tlsd refuses the output of --print-config as its configuration file: "+
			"%v\n%s", err, &b)
	}
	if d := differences(first, second); len(d) > 0 {
		t.Errorf("these settings differ after they were printed and read: %v\n%s", d, &b)
	}
	for _, line := range []string{`max-message = "3MiB" +# from TLSD_MAX_MESSAGE`, `allow-uid = \[1, 2\] +# from --allow-uid`, `drain-timeout = "12h" +# from --drain-timeout`,
		`max-handles = 65536 +# default`, `# policy is not set +# default: none`, `socket-mode = "0666" +# default`} {
		if !regexp.MustCompile(`(?m)^` + line).Match(b.Bytes()) {
			t.Errorf("no line matches %q:\n%s", line, &b)
		}
	}
}

// tlsd refuses to start if it does not know a variable TLSD_*. It must know each such variable that
// the plugin, the client or a script of this source tree reads.
func TestEveryVariableOfTheProjectIsKnown(t *testing.T) {
	t.Parallel()
	var files []string
	for _, pattern := range []string{"../tlsshim/plugin/*.c", "../tlsshim/*.go",
		"../../rpc/client/*.go", "../../scripts/*.sh"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("the pattern %s finds the files %v, %v; want one or more", pattern,
				found, err)
		}
		files = append(files, found...)
	}
	names := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\bTLSD_[A-Z_]*[A-Z]\b`).FindAllString(string(text), -1) {
			names++
			if _, err := parse([]string{name + "=x"}); err != nil &&
				strings.Contains(err.Error(), "is not known") {
				t.Errorf("%s has the variable %s, which tlsd refuses: %v", file,
					name, err)
			}
		}
	}
	if names < 10 {
		t.Errorf("found only %d names of variables in the sources, want 10 or more; does "+
			"the test still find them?", names)
	}
}

// shortTime writes 10m for ten minutes, while time.Duration's own String writes 10m0s.
func TestTimesHaveNoZeroPartsAtTheirEnd(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"12h": "12h", "10m": "10m", "1h10m": "1h10m", "1h0m5s": "1h0m5s", "0s": "0s",
		"20s": "20s", "100ms": "100ms", "10h0m": "10h", "1h20m30s": "1h20m30s",
	} {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := shortTime(d); got != want {
			t.Errorf("shortTime writes %s as %q; want %q", text, got, want)
		}
	}
}
