package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// reloading has the state of a daemon that SIGHUP changes, and the settings that the next SIGHUP
// reads.
type reloading struct {
	*reloader
	found    *options
	foundErr error
	out      bytes.Buffer
	log      *zap.Logger
}

func newReloading(t *testing.T) *reloading {
	t.Helper()
	o, err := parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := loadRules("")
	if err != nil {
		t.Fatal(err)
	}
	r := &reloading{}
	r.reloader = &reloader{running: o, level: zap.NewAtomicLevelAt(zap.InfoLevel), rules: rules,
		read: func() (*options, error) { return r.found, r.foundErr }}
	r.log, _ = newLogAt(&r.out, &r.out, r.level, false)
	return r
}

// sighup carries out SIGHUP, which reads these flags, and returns the log.
func (r *reloading) sighup(t *testing.T, args ...string) string {
	t.Helper()
	var err error
	if r.found, err = parse(nil, args...); err != nil {
		t.Fatal(err)
	}
	r.out.Reset()
	r.reload(r.log)
	return r.out.String()
}

func TestTheLogLevelChangesAtRunTime(t *testing.T) {
	t.Parallel()
	r := newReloading(t)
	log := r.sighup(t, "--log-level", "debug")
	if !strings.Contains(log, `"changed":["log-level"]`) || r.level.Level() != zap.DebugLevel {
		t.Errorf("level %v, log %s", r.level, log)
	}
	if log := r.sighup(t, "--log-level", "error"); log != "" ||
		r.level.Level() != zap.ErrorLevel {
		t.Errorf("level %v, log %s", r.level, log)
	}
	if r.sighup(t); r.level.Level() != zap.InfoLevel {
		t.Errorf("level %v, want the default's", r.level)
	}
}

func TestSettingsThatNeedARestartAreNamedUntilThen(t *testing.T) {
	t.Parallel()
	r := newReloading(t)
	for range 2 { // at the second SIGHUP they are still changed
		log := r.sighup(t, "--max-sessions", "5", "--spare", "2")
		if !strings.Contains(log, `"settings":["spare","max-sessions"]`) ||
			!strings.Contains(log, `"level":"warn"`) {
			t.Errorf("log: %s", log)
		}
	}
	if log := r.sighup(t); strings.Contains(log, "warn") {
		t.Errorf("nothing differs any more: %s", log)
	}
}

func TestBadSettingsChangeNothing(t *testing.T) {
	t.Parallel()
	r := newReloading(t)
	r.foundErr = errors.New("spares is not known")
	log := r.sighup(t, "--log-level", "debug")
	if !strings.Contains(log, "spares is not known") || r.level.Level() != zap.InfoLevel {
		t.Errorf("level %v, log %s", r.level, log)
	}
}
