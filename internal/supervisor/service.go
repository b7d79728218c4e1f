package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"tlsd/internal/confine"
	"tlsd/internal/handoff"
)

// This file tells a service manager about the daemon's start, state and end (sd_notify(3)):
//
//   - The daemon is ready when the first worker has reported. The settings may require a usable
//     OpenSSL (--require-openssl), all measures of confinement (--confine=require), or both. If
//     they require something, no caller is served before the report, and Run ends with an error if
//     the report lacks what is required.
//   - The status names the library and the number of sessions.
//   - At the stop the daemon says how long it may take.

// ErrUnfit says that the first worker's report lacks something that the settings require, or has
// not come in time. Run returns an error that wraps ErrUnfit.
var ErrUnfit = errors.New("not fit to serve")

// statusInterval is the interval between updates of the status.
const statusInterval = 5 * time.Second

// managed says whether a service manager expects messages.
func managed() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// requires says whether the settings require anything of the first report.
func (s *Supervisor) requires() bool { return s.RequireOpenSSL || s.RequireConfinement }

// fit checks a report against the settings.
func (s *Supervisor) fit(r handoff.Ready) error {
	if s.RequireOpenSSL && r.Backend == "stub" {
		return fmt.Errorf("%w: no usable OpenSSL, which --require-openssl wants: %s",
			ErrUnfit, r.Error)
	}
	if !s.RequireConfinement {
		return nil
	}
	var lacks []string
	for _, measure := range slices.Sorted(maps.Keys(r.Confinement)) {
		if why := r.Confinement[measure]; why != confine.On {
			lacks = append(lacks, fmt.Sprintf("%s (%s)", measure, why))
		}
	}
	if len(lacks) > 0 {
		return fmt.Errorf("%w: workers are confined in part only, and --confine=require "+
			"wants all measures; missing: %s", ErrUnfit, strings.Join(lacks, ", "))
	}
	return nil
}

// If the settings require anything of the first report, awaitFit waits for the report. It returns
// an error if the report lacks something, or does not come in time.
func (s *Supervisor) awaitFit(ctx context.Context) error {
	if !s.requires() {
		return nil
	}
	limit := time.NewTimer(2 * startTimeout)
	defer limit.Stop()
	for {
		select {
		case <-s.firstReport:
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.misfit
		case <-ctx.Done():
			return nil // the daemon is told to stop
		case <-s.watchdogTick:
			s.signOfLife()
		case <-limit.C:
			return fmt.Errorf("%w: no worker gets ready", ErrUnfit)
		}
	}
}

// If a report is needed and the pool has no workers (Warm is 0), probe starts one worker for its
// report.
func (s *Supervisor) probe(life context.Context) {
	if s.Warm > 0 || !managed() && !s.requires() {
		return
	}
	w, err := s.spawn(false, func(w *worker) { w.single = true })
	if err != nil {
		s.Log.Error("a worker cannot be started", zap.Error(err))
		return
	}
	s.engage(w, nil)
	select {
	case <-w.ready:
	case <-w.gone:
	case <-life.Done():
	}
	s.retire(w)
}

// notifyReady waits until the daemon is ready, and tells the service manager.
func (s *Supervisor) notifyReady(ctx context.Context) {
	select {
	case <-s.firstReport:
	case <-ctx.Done():
		return
	}
	status := s.status()
	s.mu.Lock()
	s.readySent, s.statusSent = true, status
	s.mu.Unlock()
	s.notify("READY=1\nSTATUS=" + status)
}

// status is the daemon's state in one line.
func (s *Supervisor) status() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%s; sessions: %d", s.library, s.sessions)
}

// notifyStatus tells the service manager the status if it has changed.
func (s *Supervisor) notifyStatus() {
	status := s.status()
	s.mu.Lock()
	changed := s.readySent && status != s.statusSent
	s.statusSent = status
	s.mu.Unlock()
	if changed {
		s.notify("STATUS=" + status)
	}
}

// notifyStopping tells the service manager that the daemon stops, and how long the stop may take.
func (s *Supervisor) notifyStopping() {
	longest := s.DrainTimeout + endTimeout + reapTimeout + forceTimeout
	s.notify(fmt.Sprintf("STOPPING=1\nSTATUS=waiting for %d sessions\nEXTEND_TIMEOUT_USEC=%d",
		s.count(), longest.Microseconds()))
}

// Reload calls the function read, which reads the settings again. Then it replaces the idle
// workers, so that the new workers load the library that is on the disk now. If the service manager
// knows that the daemon is ready, Reload tells it of the beginning and the end of the reload.
func (s *Supervisor) Reload(read func()) {
	s.mu.Lock()
	ready := s.readySent
	s.mu.Unlock()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil && ready {
		s.notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
	}
	read()
	s.renew()
	if ready {
		s.notify("READY=1\nSTATUS=" + s.status())
	}
}
