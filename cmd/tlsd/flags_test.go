package main

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// parse reads flags in an environment of "NAME=value" entries, without a configuration file.
func parse(env []string, args ...string) (*options, error) {
	return parseOptions(args, env, none)
}

// Without flags, each setting has its default, and the help names the same default.
func TestDefaults(t *testing.T) {
	t.Parallel()
	o, err := parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.socket != "" || o.socketMode != 0o600 || len(o.allowUID)+len(o.allowGID) != 0 ||
		o.isolation != "session" || o.spare != 1 || o.workers < 1 || o.libssl != "" ||
		o.idleExit != 0 || o.readyFD != -1 {
		t.Errorf("the settings without flags are %+v; want the documented defaults", o)
	}
	for _, f := range flagTable(o) {
		switch v := f.value.(type) {
		case *duration:
			want, err := time.ParseDuration(strings.TrimSuffix(f.preset, ", never"))
			if err != nil || want != *v.p {
				t.Errorf("--%s: the help says %q; the default is %v", f.name,
					f.preset, *v.p)
			}
		case *number:
			if f.name != "workers" && f.name != "ready-fd" &&
				f.name != "max-sessions-per-uid" && v.String() != f.preset {
				t.Errorf("--%s: the help says %q; the default is %v", f.name,
					f.preset, v)
			}
		case *size:
			n, _ := strings.CutSuffix(strings.TrimSuffix(f.preset, ", none"), "MiB")
			if n != fmt.Sprint(*v.p>>20) || *v.p&(1<<20-1) != 0 {
				t.Errorf("--%s: the help says %q; the default is %v", f.name,
					f.preset, v)
			}
		case *choice:
			if !strings.HasPrefix(f.preset, *v.p) {
				t.Errorf("--%s: the help says %q; the default is %v", f.name,
					f.preset, v)
			}
		}
	}
}

// Each setting can be given as a flag, as an environment variable, and in the configuration file.
// If a flag is given, the value of its variable is not read, so it may be wrong.
func TestEachFlagAndItsVariableSetTheSetting(t *testing.T) {
	t.Parallel()
	modeAndGroup := func(o *options) any { return []int{int(o.socketMode), o.socketGroup} }
	tests := []struct {
		flag, value string
		get         func(*options) any
		want        any
	}{
		{"socket", "/x/y", func(o *options) any { return o.socket }, "/x/y"},
		{"socket-mode", "0660", func(o *options) any { return uint32(o.socketMode) },
			uint32(0o660)},
		{"socket-mode", "666", func(o *options) any { return uint32(o.socketMode) },
			uint32(0o666)},
		{"allow-uid", "7,root, 8", func(o *options) any { return o.allowUID },
			[]uint32{7, 0, 8}},
		{"allow-uid", "7", func(o *options) any { return uint32(o.socketMode) },
			uint32(0o666)},
		{"allow-gid", "root", func(o *options) any { return o.allowGID }, []uint32{0}},
		{"allow-gid", "1", modeAndGroup, []int{0o660, 1}},
		{"allow-gid", "1,2", modeAndGroup, []int{0o666, -1}},
		{"require-openssl", "yes", func(o *options) any { return o.requireOpenSSL }, "yes"},
		{"confine", "require", func(o *options) any { return o.confine }, "require"},
		{"policy", "/x/y", func(o *options) any { return o.policy }, "/x/y"},
		{"admin-socket", "/x/y", func(o *options) any { return o.adminSocket }, "/x/y"},
		{"isolation", "shared", func(o *options) any { return o.isolation }, "shared"},
		{"workers", "7", func(o *options) any { return o.workers }, 7},
		{"spare", "0", func(o *options) any { return o.spare }, 0},
		{"libssl", "libssl.so.3", func(o *options) any { return o.libssl }, "libssl.so.3"},
		{"confine", "off", func(o *options) any { return o.confine }, "off"},
		{"readable", "/usr, /etc/passwd", func(o *options) any { return readable(o) },
			[]string{"/usr", "/etc/passwd"}},
		{"failed-handshakes", "skip", func(o *options) any { return o.failedHandshakes },
			"skip"},
		{"audit-log", "/x/audit", func(o *options) any { return o.auditLog }, "/x/audit"},
		{"key-log", "/x/keys", func(o *options) any { return o.keyLog }, "/x/keys"},
		{"reload-certificates", "auto",
			func(o *options) any { return o.reloadCertificates }, "auto"},
		{"connect-timeout", "1m30s", func(o *options) any { return o.timeouts.Connect },
			90 * time.Second},
		{"handshake-timeout", "1ms", func(o *options) any { return o.timeouts.Handshake },
			time.Millisecond},
		{"accept-handshake-timeout", "2s",
			func(o *options) any { return o.timeouts.AcceptHandshake },
			2 * time.Second},
		{"accept-timeout", "0", func(o *options) any { return o.timeouts.Accept },
			time.Duration(0)},
		{"accept-timeout", "3s", func(o *options) any { return o.timeouts.Accept },
			3 * time.Second},
		{"read-timeout", "4s", func(o *options) any { return o.timeouts.Read },
			4 * time.Second},
		{"write-timeout", "2s", func(o *options) any { return o.timeouts.Write },
			2 * time.Second},
		{"close-timeout", "5s", func(o *options) any { return o.timeouts.Close },
			5 * time.Second},
		{"answer-timeout", "6s", func(o *options) any { return o.answerTimeout },
			6 * time.Second},
		{"session-idle-timeout", "0", func(o *options) any { return o.idleTimeout },
			time.Duration(0)},
		{"drain-timeout", "0", func(o *options) any { return o.drainTimeout },
			time.Duration(0)},
		{"idle-exit", "5m", func(o *options) any { return o.idleExit }, 5 * time.Minute},
		{"watchdog", "90s", func(o *options) any { return o.watchdog }, 90 * time.Second},
		{"max-sessions", "3", func(o *options) any { return o.maxSessions }, 3},
		{"max-sessions-per-uid", "3", func(o *options) any { return o.sessionsPerUID() },
			3},
		{"max-sessions", "9", func(o *options) any { return o.sessionsPerUID() }, 9},
		{"allow-uid", "7", func(o *options) any { return o.sessionsPerUID() }, 250},
		{"max-message", "2048", func(o *options) any { return o.messages.Message }, 2048},
		{"max-message", "1GiB", func(o *options) any { return o.messages.Message },
			1 << 30},
		{"max-nesting", "4", func(o *options) any { return o.messages.Nesting }, 4},
		{"max-buffered", "3MiB", func(o *options) any { return o.messages.Buffered },
			3 << 20},
		{"max-buffered", "1KiB", func(o *options) any { return o.messages.Buffered },
			1 << 10},
		{"max-memory", "64MiB", func(o *options) any { return o.maxMemory }, 64 << 20},
		{"max-memory", "0", func(o *options) any { return o.maxMemory }, 0},
		{"max-handles", "3", func(o *options) any { return o.limits.Handles }, 3},
		{"max-calls", "3", func(o *options) any { return o.limits.Calls }, 3},
		{"max-pending", "3", func(o *options) any { return o.limits.Pending }, 3},
		{"log-level", "debug", func(o *options) any { return o.logLevel }, "debug"},
		{"log-format", "json", func(o *options) any { return o.logFormat }, "json"},
		{"ready-fd", "5", func(o *options) any { return o.readyFD }, 5},
	}
	tested := map[string]bool{"config": true, "check": true, "print-config": true,
		"version": true, "help": true}
	for _, tt := range tests {
		tested[tt.flag] = true
		variable := "TLSD_" + strings.ToUpper(strings.ReplaceAll(tt.flag, "-", "_"))
		for _, how := range []struct {
			env  []string
			args []string
		}{
			{nil, []string{"--" + tt.flag, tt.value}},
			{nil, []string{"-" + tt.flag + "=" + tt.value}},
			{[]string{variable + "=" + tt.value}, nil},
			{nil, []string{"--config", configOf(t, tt.flag+` = "`+tt.value+`"`)}},
			// the flag replaces a variable that has a wrong value
			{[]string{variable + "=nonsense"}, []string{"--" + tt.flag, tt.value}},
		} {
			o, err := parse(how.env, how.args...)
			if err != nil {
				t.Errorf("environment %q, flags %q: %v", how.env, how.args, err)
			} else if got := tt.get(o); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("environment %q, flags %q: the setting is %v; want %v",
					how.env, how.args, got, tt.want)
			}
		}
	}
	for _, f := range flagTable(&options{}) {
		if !tested[f.name] {
			t.Errorf("this test has no row for --%s", f.name)
		}
	}
}

// If a flag is given twice, the setting has the lists of both. If a flag is given, the list in its
// environment variable does not count.
func TestARepeatedFlagAddsToItsList(t *testing.T) {
	t.Parallel()
	o, err := parse([]string{"TLSD_ALLOW_UID=9"}, "--allow-uid", "1,2", "--allow-uid", "3",
		"--socket-mode", "600")
	if err != nil || !reflect.DeepEqual(o.allowUID, []uint32{1, 2, 3}) ||
		o.socketMode != 0o600 {
		t.Errorf("the settings are %+v, %v; want the users 1, 2 and 3, and the mode 0600",
			o, err)
	}
}

// If a flag or a variable is not known, or has a wrong value, the error names the flag or variable,
// and says what is wanted.
func TestWrongUsageIsExplained(t *testing.T) {
	t.Parallel()
	tests := []struct {
		env  []string
		args []string
		want string
	}{
		{nil, []string{"--readable", "/usr", "--confine", "off"},
			"--readable needs --confine=auto"},
		{nil, []string{"--readable", "/usr,etc"}, `invalid value "/usr,etc" for --readable: want absolute paths without colons, separated by commas; got "etc"`},
		{nil, []string{"--readable", "/none/such"}, `invalid value "/none/such" for --readable: stat /none/such: no such file or directory`},
		{nil, []string{"--max-memory", "63MiB"}, `invalid value "63MiB" for --max-memory: want 0 or a number of bytes from 67108864 to `},
		{nil, []string{"--socket-mode", "999"}, `invalid value "999" for --socket-mode: want permissions in octal, from 0 to 0777`},
		{nil, []string{"--socket-mode", "7777"}, "want permissions in octal"},
		{nil, []string{"--workers", "0"}, `invalid value "0" for --workers: want a whole number from 1 to 1024`},
		{nil, []string{"--workers=-1"}, "want a whole number"},
		{nil, []string{"--max-sessions", "1.5"}, "want a whole number from 1 to 1048576"},
		{nil, []string{"--max-message", "1023"}, `invalid value "1023" for --max-message: want a number of bytes from 1024 to 1073741824, such as 512KiB`},
		{nil, []string{"--max-message", "1025MiB"}, "want a number of bytes"},
		{nil, []string{"--max-message", "9007199254740993GiB"}, "want a number of bytes"},
		{nil, []string{"--max-buffered", "64MB"}, "want a number of bytes"},
		{nil, []string{"--max-buffered", "-1MiB"}, "want a number of bytes"},
		{nil, []string{"--max-nesting", "3"}, "want a whole number from 4 to 10000"},
		{nil, []string{"--write-timeout", "0"}, "want a time above 0 such as"},
		{nil, []string{"--connect-timeout", "0"}, "want a time above 0 such as"},
		{nil, []string{"--connect-timeout", "30"}, "want a time above 0 such as"},
		{nil, []string{"--idle-exit", "-1s"}, "or 0"},
		{nil, []string{"--isolation", "none"}, `invalid value "none" for --isolation: want one of session, shared`},
		{nil, []string{"--log-level", "loud"}, "want one of debug, info, warn, error"},
		{nil, []string{"--allow-uid", "no-such-user-here"}, `there is no user "no-such-user-here"`},
		{nil, []string{"--allow-uid", "1,,2"}, `there is no user ""`},
		{nil, []string{"--allow-uid", "4294967295"}, "there is no user"},
		{nil, []string{"--allow-gid", "4294967296"}, "there is no group"},
		{nil, []string{"--socket="}, `invalid value "" for --socket: want a path`},
		{nil, []string{"--unknown"}, "unknown flag --unknown"},
		{nil, []string{"--drain-timeot", "1s"},
			"unknown flag --drain-timeot; did you mean --drain-timeout?"},
		{[]string{"TLSD_DRAIN_TIMEOT=1s"}, nil,
			"the environment variable TLSD_DRAIN_TIMEOT is not known; correct or " +
				"unset it; did you mean TLSD_DRAIN_TIMEOUT?"},
		{[]string{"TLSD_QXZJV=1"}, nil,
			"the environment variable TLSD_QXZJV is not known; correct or unset it"},
		{nil, []string{"--spare"}, "a value is missing after --spare"},
		{nil, []string{"--version=maybe"},
			"for --version: want true or false, or no value at all"},
		{nil, []string{"start"}, `unexpected argument "start"`},
		{[]string{"TLSD_SPARE=-2"}, nil, `invalid value "-2" of the environment variable TLSD_SPARE: want a whole number from 0`},
		{[]string{"TLSD_READY_FD=0"}, nil, "TLSD_READY_FD: want a whole number from 1"},
	}
	for _, tt := range tests {
		_, err := parse(tt.env, tt.args...)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("environment %q, flags %q: the error is %v; want %q", tt.env,
				tt.args, err, tt.want)
		}
	}
}

// By default root's socket is in /run, and the socket of any other user in $XDG_RUNTIME_DIR.
// Without this variable, the user must name a socket.
func TestDefaultSocket(t *testing.T) {
	t.Parallel()
	tests := []struct {
		uid       int
		dir, want string
		err       bool
	}{
		{0, "", "/run/tlsd.sock", false},
		{0, "/run/user/0", "/run/tlsd.sock", false},
		{1000, "/run/user/1000", "/run/user/1000/tlsd.sock", false},
		{1000, "/run/user/1000/", "/run/user/1000/tlsd.sock", false},
		{1000, "", "", true},
	}
	for _, tt := range tests {
		got, err := defaultSocket(tt.uid, func(name string) string {
			if name != "XDG_RUNTIME_DIR" {
				t.Errorf("defaultSocket reads the variable %s; want only "+
					"XDG_RUNTIME_DIR", name)
			}
			return tt.dir
		})
		if got != tt.want || (err != nil) != tt.err {
			t.Errorf("user %d, XDG_RUNTIME_DIR %q: the socket is %q, %v; want %q",
				tt.uid, tt.dir, got, err, tt.want)
		}
	}
}

// The help has every flag, and the flag's environment variable. No line is longer than 120
// characters, the width of a screen.
func TestHelpHasEveryFlagAndNoLongLine(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	printHelp(&b)
	for _, f := range flagTable(&options{}) {
		if !strings.Contains(b.String(), "\n  --"+f.name) || f.hasVariable() &&
			!strings.Contains(b.String(), "environment: "+envName(f.name)+"\n") {
			t.Errorf("--%s, or its variable, is not in the help", f.name)
		}
	}
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 120 {
			t.Errorf("a line of the help has %d characters, want 120 at most: %s",
				n, line)
		}
	}
}
