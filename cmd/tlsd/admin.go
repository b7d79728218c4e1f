package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tlsd/internal/admin"
	"tlsd/internal/supervisor"
	"tlsd/internal/version"
)

// The daemon's main process serves the admin socket (see package admin), from the start until the
// last session has ended. This file adds what package supervisor does not know: the process's own
// log level, its policy and log queue, and the way to stop the daemon.

// adminPath is the path of the admin socket; "": no admin socket. preset says that the path is the
// default.
func (o *options) adminPath() (path string, preset bool) {
	switch {
	case o.adminSocket == none:
		return "", false
	case o.adminSocket != "":
		return o.adminSocket, false
	case os.Geteuid() == 0 && o.socket == "":
		return admin.DefaultSocket, true
	}
	return "", false
}

// administration implements admin.Daemon.
type administration struct {
	*supervisor.Supervisor
	level zap.AtomicLevel
	rules *rules
	queue *logQueue
	drain context.CancelFunc
}

// LogLevel changes the log level of the daemon and of its workers. An empty level changes nothing.
// LogLevel returns the level that is then in force. SIGHUP restores the level of the settings.
func (a *administration) LogLevel(level string) (string, error) {
	if level != "" {
		a.level.SetLevel(levelOf(level))
		a.SetLogLevel(level)
	}
	return a.level.Level().String(), nil
}

// Drain makes the daemon stop as on SIGTERM.
func (a *administration) Drain() (sessions int) {
	sessions = a.Health().Sessions
	a.drain()
	return sessions
}

// Health adds tlsd's version to the supervisor's report.
func (a *administration) Health() admin.Health {
	h := a.Supervisor.Health()
	h.Version = version.Version
	return h
}

// Metrics adds the program's metrics to those of the supervisor.
func (a *administration) Metrics() []admin.Family {
	h := a.Health()
	healthy := 0.0
	if h.Healthy {
		healthy = 1
	}
	one := func(name, help, typ string, samples ...admin.Sample) admin.Family {
		return admin.Family{Name: name, Help: help, Type: typ, Samples: samples}
	}
	result := func(result string, n uint64) admin.Sample {
		return admin.Sample{Labels: map[string]string{"result": result}, Value: float64(n)}
	}
	return append(a.Supervisor.Metrics(),
		one("tlsd_build_info", "1, with the versions of tlsd and of the library.", "gauge",
			admin.Sample{Labels: map[string]string{"version": h.Version,
				"library": h.Library}, Value: 1}),
		one("tlsd_healthy", "1 if tlsshim health finds no problem, else 0.", "gauge",
			admin.Sample{Value: healthy}),
		one("tlsd_log_dropped_total",
			"Entries of the log that could not be written.",
			"counter",
			admin.Sample{Value: float64(a.queue.losses())}),
		one("tlsd_policy_reloads_total",
			"How often the policy was read again, by the result.", "counter",
			result("ok", a.rules.reloads.Load()),
			result("failed", a.rules.failures.Load())),
	)
}

// listenAdmin makes the admin socket. It returns nil if the settings want none.
func listenAdmin(o *options, log *zap.Logger) (*supervisor.Socket, error) {
	path, preset := o.adminPath()
	if path == "" {
		return nil, nil
	}
	if preset {
		// without the folder, Listen fails and says so
		_ = os.Mkdir(filepath.Dir(path), 0o755)
	}
	socket, err := supervisor.Listen(path, 0o600)
	if err != nil && preset {
		log.Warn("there is no admin socket", zap.Error(err))
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--admin-socket: %w", err)
	}
	log.Info("admin socket", zap.String("path", path))
	return socket, nil
}

// If socket is not nil, serveAdmin starts a goroutine that serves the admin socket until the caller
// calls stop(). stop() also removes the socket. The returned context ends when parent ends, or when
// an administrator stops the daemon.
func serveAdmin(parent context.Context, socket *supervisor.Socket, a *administration, log,
	audit *zap.Logger) (ctx context.Context, stop func()) {
	if socket == nil {
		return parent, func() {}
	}
	ctx, a.drain = context.WithCancel(parent)
	life, end := context.WithCancel(context.Background())
	served := make(chan struct{})
	// A denied user can connect again and again. So the number of lines is limited.
	strangers := log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(c, time.Second, 5, 1000)
	}))
	server := admin.Server{
		Listener: socket.UnixListener, Daemon: a,
		Ordered: func(who admin.Client, method, asked string) {
			audit.Info("administrator", zap.Uint32("uid", who.UID),
				zap.Int32("pid", who.PID), zap.String("method", method),
				zap.String("asked", asked))
		},
		Denied: func(who admin.Client) {
			strangers.Warn("a user may not use the admin socket",
				zap.Uint32("uid", who.UID), zap.Int32("pid", who.PID))
		},
	}
	go func() { defer close(served); server.Run(life) }()
	return ctx, func() {
		if err := socket.Remove(); err != nil {
			log.Warn("the admin socket's file cannot be removed", zap.Error(err))
		}
		end()
		<-served
		a.drain()
	}
}
