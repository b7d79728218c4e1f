package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"tlsd/internal/supervisor"
	"tlsd/internal/version"
)

// This file turns the settings into the configurations of the supervisor and of the workers.

// supervisorConfig is the part of the supervisor's configuration that follows from the settings.
func supervisorConfig(o *options) supervisor.Config {
	cfg := supervisor.Config{
		Policy: supervisor.Policy{UIDs: o.allowUID, GIDs: o.allowGID},
		Shared: o.isolation == "shared", Warm: o.spare,
		MaxSessions: o.maxSessions, MaxSessionsPerUID: o.sessionsPerUID(),
		DrainTimeout: o.drainTimeout, IdleExit: o.idleExit, Watchdog: o.watchdog,
		MaxMemory: int64(o.maxMemory), Readable: readable(o),
		Confine: o.confine != "off", RequireConfinement: o.confine == "require",
		RequireOpenSSL: o.requireOpenSSL == "yes",
	}
	if cfg.Shared {
		cfg.Warm = o.workers
	}
	if os.Geteuid() == 0 && len(o.allowUID)+len(o.allowGID) > 0 {
		cfg.WarmOthers = o.spare
	}
	return cfg
}

// listenBoth makes the socket for callers, and the admin socket. adminSocket is nil if the settings
// name no admin socket.
func listenBoth(o *options, log *zap.Logger) (socket, adminSocket *supervisor.Socket, err error) {
	if socket, err = listen(o); err != nil {
		return nil, nil, err
	}
	if adminSocket, err = listenAdmin(o, log); err != nil {
		return nil, nil, errors.Join(err, socket.Remove(), socket.Close())
	}
	return socket, adminSocket, nil
}

// listen takes the socket that systemd passes, or makes a socket.
func listen(o *options) (*supervisor.Socket, error) {
	if socket, err := supervisor.Activated(); socket != nil || err != nil {
		return socket, err
	}
	path, err := o.socketPath()
	if err != nil {
		return nil, usageError{err}
	}
	if o.socketGroup < 0 {
		return supervisor.Listen(path, o.socketMode)
	}
	socket, err := supervisor.Listen(path, 0o600)
	if err != nil {
		return nil, err
	}
	err = socket.GiveTo(o.socketGroup, o.socketMode)
	if errors.Is(err, unix.EPERM) {
		// Tlsd's user is not in the group, and so cannot give it the socket. All users may
		// open the socket instead: tlsd checks each caller anyway.
		err = socket.GiveTo(-1, 0o666)
	}
	if err != nil {
		_ = socket.Remove()
		socket.Close()
		return nil, err
	}
	return socket, nil
}

// workerSettings is the configuration of each worker.
func workerSettings(o *options) (json.RawMessage, error) {
	libssl := o.libssl
	if strings.Contains(libssl, "/") { // otherwise the loader searches for the name
		var err error
		if libssl, err = filepath.Abs(libssl); err != nil {
			return nil, fmt.Errorf("--libssl %s: %w", o.libssl, err)
		}
	}
	return json.Marshal(workerConfig{
		Libssl: libssl, Version: version.Version,
		Timeouts: o.timeouts, Limits: o.limits, Messages: o.messages,
		AnswerTimeout: o.answerTimeout, IdleTimeout: o.idleTimeout,
		MaxMemory: int64(o.maxMemory), LogLevel: o.logLevel,
		SkipFailedHandshakes: o.failedHandshakes == "skip",
		ReloadCertificates:   o.reloadCertificates == "auto",
		KeyLog:               o.keyLog != "",
	})
}

// readable lists what workers may read besides the system's files: the paths of --readable, and the
// folder of the library of --libssl. Without --readable the list is empty, and workers may read all
// that their users may read.
func readable(o *options) []string {
	if len(o.readable) == 0 || !strings.Contains(o.libssl, "/") {
		return o.readable
	}
	list := slices.Clone(o.readable)
	// Abs cannot fail here: workerSettings has called it before, with the same path.
	if path, err := filepath.Abs(o.libssl); err == nil {
		list = append(list, filepath.Dir(path))
		if real, err := filepath.EvalSymlinks(path); err == nil {
			list = append(list, filepath.Dir(real))
		}
	}
	return list
}

// logSettings logs which configuration file was read. It warns of settings whose effect may
// surprise.
func logSettings(o *options, log *zap.Logger) {
	if o.config != none {
		log.Info("configuration file read", zap.String("path", o.config))
	}
	if os.Geteuid() != 0 && len(o.allowUID)+len(o.allowGID) > 0 {
		log.Warn("tlsd does not run as root: the callers of --allow-uid and --allow-gid "+
			"use files and ports with the rights of tlsd's own user",
			zap.Int("uid", os.Geteuid()))
	}
	// The supervisor needs this many descriptors for each session, and for everything else.
	const perSession, other = 4, 64
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil ||
		o.isolation != "session" {
		return
	}
	need := uint64(o.maxSessions)*perSession + other
	if uint64(limit.Cur) < need { // Cur is signed on some systems
		log.Warn("the limit of open files (RLIMIT_NOFILE) is too low for --max-sessions",
			zap.Uint64("limit", uint64(limit.Cur)), zap.Uint64("needed", need),
			zap.Int("max-sessions", o.maxSessions))
	}
}

// limitStacks lowers the limit of a stack's size (RLIMIT_STACK) for workers, which inherit it. The
// C library makes the stack of each thread as large as the limit, and the whole stack counts as the
// worker's memory (--max-memory).
func limitStacks(log *zap.Logger) {
	const enough = 1 << 20
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_STACK, &limit)
	if err == nil && limit.Cur > enough {
		limit.Cur = enough
		err = unix.Setrlimit(unix.RLIMIT_STACK, &limit)
	}
	if err != nil {
		log.Warn("the limit of a stack's size cannot be lowered: the whole stack of each "+
			"thread counts as a worker's memory", zap.Error(err))
	}
}
