package main

import (
	"slices"

	"go.uber.org/zap"
)

// changeable lists the settings that a running daemon takes from its configuration file at SIGHUP.
// The other settings belong to processes and to a socket that exist already.
var changeable = []string{"log-level", "policy"}

// reloader carries out SIGHUP. Only the goroutine that handles signals uses it.
type reloader struct {
	read    func() (*options, error) // reads the settings as at a start
	running *options                 // the settings in force
	level   zap.AtomicLevel
	rules   *rules
	audits  *auditLog // nil: audit lines are in the log
}

// reload opens the audit log again, and reads the settings and the policy file again. After an
// error in the settings, none of them changes.
func (r *reloader) reload(log *zap.Logger) {
	r.audits.reopen()
	next, err := r.read()
	if err != nil {
		log.Error("the settings have an error; the earlier settings stay in force",
			zap.Error(err))
		return
	}
	taken, waiting := []string{}, []string{}
	for _, name := range differences(r.running, next) {
		if slices.Contains(changeable, name) {
			taken = append(taken, name)
		} else {
			waiting = append(waiting, name)
		}
	}
	r.level.SetLevel(levelOf(next.logLevel))
	r.running.logLevel, r.running.policy = next.logLevel, next.policy
	log.Info("settings read again", zap.Strings("changed", taken))
	if len(waiting) > 0 {
		log.Warn("a running tlsd cannot change these settings: they hold after a restart", zap.Strings("settings", waiting))
	}
	r.rules.reload(next.policy, log)
}

// differences names the settings whose values differ between a and b.
func differences(a, b *options) []string {
	var names []string
	x, y := settings(a), settings(b)
	for i := range x {
		if x[i].value != y[i].value {
			names = append(names, x[i].name)
		}
	}
	return names
}
