package main

import (
	"slices"
	"sync/atomic"

	"go.uber.org/zap"

	"tlsd/internal/supervisor"
)

// changeable lists the settings that a running daemon can change at SIGHUP. The other settings need
// a restart, because processes and sockets that exist already depend on them.
var changeable = []string{"log-level", "policy"}

// reloader carries out SIGHUP. The field daemon is set by the goroutine that runs start(). Apart
// from that, only the goroutine that handles signals uses the reloader.
type reloader struct {
	read    func() (*options, error) // reads the settings as at a start
	running *options                 // the settings in force
	level   zap.AtomicLevel
	rules   *rules
	audits  *auditLog // nil: audit lines are in the log

	daemon atomic.Pointer[supervisor.Supervisor] // nil until the supervisor exists
}

// hangUp carries out a SIGHUP. Supervisor.Reload also notifies the service manager, and replaces
// the idle workers.
func (r *reloader) hangUp(log *zap.Logger) {
	d := r.daemon.Load()
	if d == nil {
		r.reload(log)
		return
	}
	d.Reload(func() {
		r.reload(log)
		d.SetLogLevel(r.level.Level().String()) // replaces a level that tlsshim has set
	})
}

// reload opens the audit log again, and reads the settings and the policy file again. If the
// settings have an error, no setting changes.
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
	r.rules.reload(next.policy, log)
	// The log has this line only when the new settings are in force, so that a reader can wait
	// for the line.
	log.Info("settings read again", zap.Strings("changed", taken))
	if len(waiting) > 0 {
		log.Warn("a running tlsd cannot change these settings: restart it to use them",
			zap.Strings("settings", waiting))
	}
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
