package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// The type reloading is a reloader for tests. At the next SIGHUP it reads the settings of its field
// found, or gets the error of its field foundErr. Its field out has the log.
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

// sighup does what a SIGHUP does, when tlsd's settings are those of the flags args. It returns the
// new log lines.
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

// At SIGHUP, tlsd changes to the log level that its settings have now. If the new level allows
// lines of the level info, a line says that log-level has changed.
func TestTheLogLevelChangesAtRunTime(t *testing.T) {
	t.Parallel()
	r := newReloading(t)
	log := r.sighup(t, "--log-level", "debug")
	if !strings.Contains(log, `"changed":["log-level"]`) || r.level.Level() != zap.DebugLevel {
		t.Errorf("the level is %v, the log %s; want debug, and a line that log-level has "+
			"changed", r.level, log)
	}
	if log := r.sighup(t, "--log-level", "error"); log != "" ||
		r.level.Level() != zap.ErrorLevel {
		t.Errorf("the level is %v, the log %s; want error, and no line", r.level, log)
	}
	if r.sighup(t); r.level.Level() != zap.InfoLevel {
		t.Errorf("without a setting, the level is %v; want info", r.level)
	}
}

// Many settings change only at a restart. While the new value of such a setting differs from the
// value with which tlsd runs, each SIGHUP logs a warning with the setting's name.
func TestSettingsThatNeedARestartAreNamedUntilThen(t *testing.T) {
	t.Parallel()
	r := newReloading(t)
	for range 2 { // the second SIGHUP warns again
		log := r.sighup(t, "--max-sessions", "5", "--spare", "2")
		if !strings.Contains(log, `"settings":["spare","max-sessions"]`) ||
			!strings.Contains(log, `"level":"warn"`) {
			t.Errorf("the log is %s; want a warning with spare and max-sessions", log)
		}
	}
	if log := r.sighup(t); strings.Contains(log, "warn") {
		t.Errorf("the settings are as before, but SIGHUP warns: %s", log)
	}
}

// If the settings have a mistake at SIGHUP, tlsd logs the error and keeps all its settings.
func TestBadSettingsChangeNothing(t *testing.T) {
	t.Parallel()
	r := newReloading(t)
	r.foundErr = errors.New("spares is not known")
	log := r.sighup(t, "--log-level", "debug")
	if !strings.Contains(log, "spares is not known") || r.level.Level() != zap.InfoLevel {
		t.Errorf("the level is %v, the log %s; want info, and the error", r.level, log)
	}
}
