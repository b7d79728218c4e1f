// Tlsd serves TLS to local programs. They speak JSON-RPC 2.0 to its Unix socket,
// as proto.md describes; it loads OpenSSL at run time and owns every TLS
// connection, so that nothing which OpenSSL or a peer does can hurt them.
//
//	tlsd --socket PATH
//
// is the whole of a normal start. Without --socket the path is $TLSD_SOCKET, else
// /run/tlsd.sock for root, else $XDG_RUNTIME_DIR/tlsd.sock. Each flag has an environment
// twin, --socket-mode for one TLSD_SOCKET_MODE; the flag wins. tlsd --help lists all. The
// configuration file, --config, sets what neither a flag nor a variable sets.
//
// # Who may connect
//
// The kernel tells tlsd the caller's user and groups. By default only the user
// that runs tlsd may connect; --allow-uid and --allow-gid let others in.
//
// # What scripts may do
//
// The administrator's policy file, --policy, bounds what the sessions of a user may do, above what
// the user's rights allow: see package policy, and docs/settings.md for the file. A file that is
// not good is an error at the start; at SIGHUP it is logged, and what was read before stays in
// force.
//
// # Processes
//
// The daemon itself only listens and supervises. Each session is served by a worker
// process of its own (--isolation=session), or by one of a fixed number
// (--isolation=shared). If OpenSSL crashes, the sessions of that worker end and
// nothing else. When tlsd runs as root, the worker of another user's session
// runs with that user's rights, so that the files and ports that the caller names are opened as the
// caller, also with --isolation=shared. When it runs as somebody else, all act with
// that user's rights.
//
// Workers ignore SIGTERM.
//
// # Administration
//
// Root and tlsd's own user see the sessions, end one, and ask for metrics at the admin socket,
// --admin-socket, with tlsshim. It is served in the daemon's own process. An order is an audit
// line.
//
// # Start and stop
//
// The path is locked (PATH.lock, which stays) so that two daemons never serve it. A socket that
// a dead daemon has left is replaced; anything else at the path is not touched.
//
// A service manager learns by sd_notify when the first worker has reported (READY=1), of the
// library and the number of sessions (STATUS=), that settings are read again, and how long the end
// can take. A newline on the descriptor of --ready-fd comes as soon as tlsd listens. A listening
// socket may be passed in by systemd (LISTEN_FDS); then --socket and --socket-mode have no effect.
//
// On SIGTERM or SIGINT tlsd stops listening, removes the socket and lets open sessions finish.
// After --drain-timeout it ends them; a second signal ends them at once. With --idle-exit it stops
// by itself when there has been no session for that long. On SIGHUP it reads the configuration file
// and the policy file again, and logs which settings hold only after a restart.
//
// # Exit status
//
//	0  stopped as it was told to; sessions that were open after --drain-timeout were ended
//	1  could not start, or was forced to stop while sessions were open
//	2  wrong usage, or a bad setting
//
// # Log
//
// The log goes to standard error: for people on a terminal, to systemd's journal with priorities
// and fields (see package journal), else as JSON. It never has payload, keys or passwords. Lines of
// the logger "audit" are written whatever --log-level says, and with --audit-log to another file.
// tlsd does not wait for whoever reads its log: if that is slow, gone, or a disk that is full, tlsd
// serves on, keeps up to 1 MiB of entries, and as much of the audit's besides, and drops what comes
// on top. A warning says how many were lost as soon as one can be written again.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"tlsd/internal/handoff"
	"tlsd/internal/supervisor"
	"tlsd/internal/version"
)

func main() {
	if len(os.Args) == 1 && os.Args[0] == handoff.Arg0 {
		os.Exit(runWorker())
	}
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program. It returns the exit status. When ctx is done, it stops as on
// SIGTERM.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	read := func() (*options, error) { return parseOptions(args, os.Environ(), presetConfig()) }
	o, err := read()
	if err != nil {
		return misuse(stderr, err)
	}
	switch {
	case o.help:
		printHelp(stdout)
		return 0
	case o.version:
		fmt.Fprintln(stdout, version.Line("tlsd"))
		return 0
	case o.printConfig:
		printConfig(stdout, o)
		return 0
	case o.check:
		return check(stdout, o)
	}
	if err := start(ctx, o, read, stderr); err != nil {
		if errors.As(err, new(usageError)) {
			return misuse(stderr, err)
		}
		fmt.Fprintln(stderr, "tlsd:", err)
		return 1
	}
	return 0
}

// usageError is an error of the command line that shows only when it is carried out.
type usageError struct{ error }

func misuse(stderr io.Writer, err error) int {
	fmt.Fprintf(stderr, "tlsd: %v\nRun tlsd --help for all flags.\n", err)
	return 2
}

// start makes the socket and serves on it until tlsd is told to stop. At SIGHUP it reads the
// settings again.
func start(ctx context.Context, o *options, read func() (*options, error), stderr io.Writer) error {
	if err := oneUser(); err != nil {
		return err
	}
	closeOnExec()
	ready, err := openReady(o.readyFD)
	if err != nil {
		return usageError{err}
	}
	worker, err := workerSettings(o)
	if err != nil {
		return usageError{err}
	}
	rules, err := loadRules(o.policy)
	if err != nil {
		return err
	}
	place, forPeople, err := logPlace(o.logFormat, stderr)
	if err != nil {
		return err
	}
	queue := newLogQueue(place)
	defer queue.close()
	level := zap.NewAtomicLevelAt(levelOf(o.logLevel))
	log, always := newLogAt(queue, queue.forAudit(), level, forPeople)
	queue.tellLoss(func(entries int) { // of the audit, too, and so it is told whatever the level is
		always.Warn("log entries were lost, because they could not be written",
			zap.Int("entries", entries))
	})
	audits, audit, err := openAuditLog(o.auditLog, log, always)
	if err != nil {
		return err
	}
	defer audits.close()
	if o.maxMemory > 0 {
		limitStacks(log)
	}
	running := *o
	reload := &reloader{read: read, running: &running, level: level, rules: rules,
		audits: audits}
	var daemon atomic.Pointer[supervisor.Supervisor] // when it runs
	ctx, force, stop := handleSignals(ctx, log, func() {
		if d := daemon.Load(); d != nil {
			d.Reload(func() {
				reload.reload(log)
				d.SetLogLevel(level.Level().String()) // of the workers, also after an order
			})
		} else {
			reload.reload(log)
		}
	})
	defer stop()
	keys, err := openKeyLog(o.keyLog, log, audit)
	if err != nil {
		return err
	}
	defer keys.Close() // nil gives an error
	socket, err := listen(o)
	if err != nil {
		return err
	}
	adminSocket, err := listenAdmin(o, log)
	if err != nil {
		return errors.Join(err, socket.Remove(), socket.Close())
	}
	if ready != nil {
		_, err := ready.Write([]byte("\n"))
		if err = errors.Join(err, ready.Close()); err != nil {
			log.Warn("--ready-fd", zap.Error(err))
		}
	}
	if o.config != noConfig {
		log.Info("configuration file read", zap.String("path", o.config))
	}
	warn(o, log)
	cfg := supervisorConfig(o)
	cfg.Log, cfg.Audit, cfg.Socket, cfg.PolicyFor, cfg.WorkerConfig, cfg.KeyLog = log, audit, socket, rules.For, worker, keys
	cfg.AuditLost = audits.losses
	d := supervisor.New(cfg)
	daemon.Store(d)
	whole := &administration{Supervisor: d, level: level, rules: rules, queue: queue}
	ctx, stopAdmin := serveAdmin(ctx, adminSocket, whole, log, audit)
	defer stopAdmin()
	err = d.Run(ctx, force)
	if errors.Is(err, supervisor.ErrDrainTimeout) { // as it was ordered
		log.Warn(err.Error())
		return nil
	}
	return err
}

// supervisorConfig is what the settings say to the supervisor.
func supervisorConfig(o *options) supervisor.Config {
	cfg := supervisor.Config{
		Policy: supervisor.Policy{UIDs: o.allowUID, GIDs: o.allowGID},
		Shared: o.isolation == "shared", Warm: o.spare,
		MaxSessions: o.maxSessions, MaxSessionsPerUID: o.sessionsPerUID(), DrainTimeout: o.drainTimeout, IdleExit: o.idleExit,
		Watchdog: o.watchdog, Confine: o.confine != "off", MaxMemory: int64(o.maxMemory), Readable: readable(o),
		RequireConfinement: o.confine == "require", RequireOpenSSL: o.requireOpenSSL == "yes",
	}
	if cfg.Shared {
		cfg.Warm = o.workers
	}
	if os.Geteuid() == 0 && len(o.allowUID)+len(o.allowGID) > 0 {
		cfg.WarmOthers = o.spare
	}
	return cfg
}

// listen takes the socket that systemd passes, or makes one.
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
	if errors.Is(err, unix.EPERM) { // not a group of tlsd's own: all may connect, and tlsd decides
		err = socket.GiveTo(-1, 0o666)
	}
	if err != nil {
		_ = socket.Remove()
		socket.Close()
		return nil, err
	}
	return socket, nil
}

// workerSettings is what each worker is told.
func workerSettings(o *options) (json.RawMessage, error) {
	libssl := o.libssl
	if strings.Contains(libssl, "/") { // else a name for the loader to search
		var err error
		if libssl, err = filepath.Abs(libssl); err != nil {
			return nil, fmt.Errorf("--libssl %s: %w", o.libssl, err)
		}
	}
	return json.Marshal(workerConfig{
		Libssl: libssl, Version: version.Version, Timeouts: o.timeouts, Limits: o.limits, Messages: o.messages,
		AnswerTimeout: o.answerTimeout, IdleTimeout: o.idleTimeout, LogLevel: o.logLevel,
		MaxMemory: int64(o.maxMemory), SkipFailedHandshakes: o.failedHandshakes == "skip", KeyLog: o.keyLog != "",
		ReloadCertificates: o.reloadCertificates == "auto",
	})
}

// readable is what workers may read besides the system's files. The folder of a library of --libssl
// is part of it.
func readable(o *options) []string {
	if len(o.readable) == 0 || !strings.Contains(o.libssl, "/") {
		return o.readable
	}
	list := slices.Clone(o.readable)
	if path, err := filepath.Abs(o.libssl); err == nil { // else it cannot be loaded in any case
		list = append(list, filepath.Dir(path))
		if real, err := filepath.EvalSymlinks(path); err == nil {
			list = append(list, filepath.Dir(real))
		}
	}
	return list
}

// warn logs settings that may not be what their author thinks.
func warn(o *options, log *zap.Logger) {
	if os.Geteuid() != 0 && len(o.allowUID)+len(o.allowGID) > 0 {
		log.Warn("tlsd does not run as root, so the callers that --allow-uid and --allow-gid let in use files and ports with the rights of tlsd's own user",
			zap.Int("uid", os.Geteuid()))
	}
	const perSession, own = 4, 64 // descriptors of the supervisor
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || o.isolation != "session" {
		return
	}
	need := uint64(o.maxSessions)*perSession + own
	if uint64(limit.Cur) < need { // Cur is signed on some systems
		log.Warn("the limit of open files (RLIMIT_NOFILE) is too low for --max-sessions",
			zap.Uint64("limit", uint64(limit.Cur)), zap.Uint64("needed", need),
			zap.Int("max-sessions", o.maxSessions))
	}
}

// limitStacks makes the stacks of workers' threads small, which inherit this: the C library takes
// it for the size of each, and all of it counts as their memory.
func limitStacks(log *zap.Logger) {
	const enough = 1 << 20
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_STACK, &limit)
	if err == nil && limit.Cur > enough {
		limit.Cur = enough
		err = unix.Setrlimit(unix.RLIMIT_STACK, &limit)
	}
	if err != nil {
		log.Warn("the stacks of workers' threads count as their memory in full", zap.Error(err))
	}
}

// handleSignals makes the first SIGTERM or SIGINT end the context, and a second
// one close force, and SIGHUP call reload. The handling ends with stop.
func handleSignals(parent context.Context, log *zap.Logger, reload func()) (ctx context.Context, force <-chan struct{}, stop func()) {
	signal.Ignore(unix.SIGPIPE)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	ctx, cancel := context.WithCancel(parent)
	forced := make(chan struct{})
	var handling sync.WaitGroup
	handling.Go(func() {
		count := 0
		for sig := range signals {
			if sig == unix.SIGHUP {
				reload()
				continue
			}
			count++
			log.Info("signal", zap.Stringer("signal", sig), zap.Int("count", count))
			switch count {
			case 1:
				cancel()
			case 2:
				close(forced)
			}
		}
	})
	return ctx, forced, func() {
		signal.Stop(signals)
		close(signals)
		handling.Wait()
		cancel()
	}
}

// oneUser says why this process has no rights that are one user's. A worker of such a process could
// get the rights of the other user when it executes the program: with no_new_privs, the kernel
// gives it the real user's.
func oneUser() error {
	for what, ids := range map[string]func() (r, e, s int){"user": userIDs, "group": groupIDs} {
		if r, e, s := ids(); r != e || e != s {
			return fmt.Errorf("the real %s is %d, the effective one %d and the saved one %d: tlsd would give the rights of one to the other; "+
				"start it as one %s (setpriv, su), and not by a set-id file", what, r, e, s, what)
		}
	}
	return nil
}

// openReady takes the descriptor of --ready-fd. The Go runtime's own
// descriptors are neither files nor pipes nor sockets.
func openReady(fd int) (*os.File, error) {
	if fd < 0 {
		return nil, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("--ready-fd %d: %w; want the number of a descriptor that is open for writing", fd, err)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE == unix.O_RDONLY || st.Mode&unix.S_IFMT == 0 || fd == 2 {
		return nil, fmt.Errorf("--ready-fd %d: want a pipe, socket or file that is open for writing, and not standard error", fd)
	}
	return os.NewFile(uintptr(fd), "ready-fd"), nil
}
