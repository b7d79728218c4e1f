// Tlsd serves TLS to local programs. The programs speak JSON-RPC 2.0 over a Unix socket, as
// proto.md describes. Tlsd loads OpenSSL at run time and owns every TLS connection. So a fault of
// OpenSSL, or a hostile peer, cannot harm the programs. A normal start:
//
//	tlsd --socket PATH
//
// Without --socket the path is $TLSD_SOCKET, else /run/tlsd.sock for root, else
// $XDG_RUNTIME_DIR/tlsd.sock. Each flag with a value has an environment variable: that of
// --socket-mode is TLSD_SOCKET_MODE. A flag wins over its variable, and a variable over the
// configuration file (--config). tlsd --help lists all flags.
//
// # Who may connect
//
// The kernel tells tlsd the caller's user and groups. By default only the user that runs tlsd may
// connect. --allow-uid and --allow-gid allow others.
//
// # What scripts may do
//
// The administrator's policy file (--policy) restricts the sessions of a user further than the
// user's rights do. See package policy, and docs/settings.md for the file. If the file has
// an error at the start, tlsd does not start. If the file has an error at SIGHUP, tlsd logs the
// error, and the earlier policy stays in force.
//
// # Processes
//
// The daemon itself only listens and supervises. A worker process serves each session: a worker of
// its own (--isolation=session), or one that several sessions share (--isolation=shared). If
// OpenSSL crashes in a worker, only this worker's sessions end.
//
// If tlsd runs as root, a session of another user always has a worker of its own, also with
// --isolation=shared. This worker has the rights of the session's user. So the files and ports that
// a caller names are opened with the caller's rights. If tlsd does not run as root, all workers
// have the rights of tlsd's user.
//
// Workers ignore SIGTERM, SIGINT and SIGHUP. A service manager or a terminal may send these signals
// to all processes of tlsd, and only the daemon obeys them.
//
// # Administration
//
// With tlsshim, root and tlsd's own user can list sessions, end a session, and read metrics.
// Tlsshim uses the admin socket (--admin-socket), which the daemon's own process serves. Each order
// (end, drain, a new log level) writes an audit line.
//
// # Start and stop
//
// Tlsd locks the path with the file PATH.lock, which is never removed. So two daemons never serve
// one path. Tlsd replaces the socket of a dead daemon. It never touches another kind of file at the
// path.
//
// Tlsd notifies a service manager by sd_notify. Tlsd sends READY=1 when the first worker has
// reported two things: its libssl, and the measures that confine the worker. STATUS= has the
// library and the number of sessions. At SIGHUP tlsd sends RELOADING=1. At a stop, it says how long
// the stop may take. As soon as tlsd listens, it writes a newline to the descriptor of --ready-fd.
// If systemd passes a listening socket (LISTEN_FDS), --socket and --socket-mode have no effect.
//
// On SIGTERM or SIGINT tlsd stops listening, removes the socket and drains: open sessions may
// finish. After --drain-timeout tlsd ends them. A second signal ends them at once. With --idle-exit
// TIME, tlsd stops by itself when it has had no session for TIME. On SIGHUP tlsd reads the
// configuration file and the policy file again. It logs which of the changed settings need a
// restart.
//
// # Exit status
//
//	0  stopped as it was told to, also if --drain-timeout has ended open sessions
//	1  could not start, or a second signal has ended open sessions; with --check: a fault was
//	   found
//	2  wrong usage, or a bad setting
//
// # Log
//
// The log goes to standard error: as text on a terminal, to systemd's journal with priorities and
// fields (see package journal), else as JSON. It never has payload, keys or passwords. Lines of the
// logger "audit" are written at every log level. With --audit-log they go to a file of their own.
//
// Tlsd never waits for the reader of its log. While the reader is slow or gone, or the disk is
// full, at most 1 MiB of entries wait for the next write. Audit entries may take 1 MiB more. Tlsd
// drops the rest. As soon as a write succeeds again, a warning says how many entries were lost.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"

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

// run is the program, and returns the exit status. When ctx is done, it stops as on SIGTERM.
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

// usageError is an error in the settings that is found after they were parsed.
type usageError struct{ error }

func misuse(stderr io.Writer, err error) int {
	fmt.Fprintf(stderr, "tlsd: %v\nRun tlsd --help for all flags.\n", err)
	return 2
}

// start sets tlsd up, and serves until tlsd is told to stop. A reload calls readAgain for the new
// settings.
func start(ctx context.Context, o *options, readAgain func() (*options, error),
	stderr io.Writer) error {
	if err := checkOneUser(); err != nil {
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
	logs, err := openLogs(o, stderr)
	if err != nil {
		return err
	}
	defer logs.close()
	log := logs.log
	if o.maxMemory > 0 {
		limitStacks(log)
	}
	running := *o
	reload := &reloader{read: readAgain, running: &running, level: logs.level, rules: rules,
		audits: logs.auditFile}
	ctx, force, stop := handleSignals(ctx, log, func() { reload.hangUp(log) })
	defer stop()
	keys, err := openKeyLog(o.keyLog, log, logs.audit)
	if err != nil {
		return err
	}
	defer keys.Close() // does nothing if keys is nil
	socket, adminSocket, err := listenBoth(o, log)
	if err != nil {
		return err
	}
	sayReady(ready, log)
	logSettings(o, log)
	cfg := supervisorConfig(o)
	cfg.Log, cfg.Audit, cfg.AuditLost = log, logs.audit, logs.auditFile.losses
	cfg.Socket, cfg.PolicyFor = socket, rules.For
	cfg.WorkerConfig, cfg.KeyLog = worker, keys
	daemon := supervisor.New(cfg)
	reload.daemon.Store(daemon)
	ctx, stopAdmin := serveAdmin(ctx, adminSocket, &administration{Supervisor: daemon,
		level: logs.level, rules: rules, queue: logs.queue}, log, logs.audit)
	defer stopAdmin()
	err = daemon.Run(ctx, force)
	if errors.Is(err, supervisor.ErrDrainTimeout) { // no failure: --drain-timeout asks for it
		log.Warn(err.Error())
		return nil
	}
	return err
}

// handleSignals handles signals until the caller calls stop(). The first SIGTERM or SIGINT ends the
// context. The second closes the channel force. At each SIGHUP, handleSignals calls reload().
func handleSignals(parent context.Context, log *zap.Logger, reload func()) (
	ctx context.Context, force <-chan struct{}, stop func()) {
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

// checkOneUser returns an error if this process has the rights of two users or groups. A worker
// sets no_new_privs and executes this program again. If the effective user is not the real user,
// the kernel then replaces the effective user by the real one. So the worker would have other
// rights than the daemon.
func checkOneUser() error {
	for what, ids := range map[string]func() (r, e, s int){"user": userIDs, "group": groupIDs} {
		if r, e, s := ids(); r != e || e != s {
			return fmt.Errorf("the real %s is %d, the effective one %d and the saved "+
				"one %d: parts of tlsd would run with different rights; "+
				"start tlsd as one %s (setpriv, su), and not by a set-id file",
				what, r, e, s, what)
		}
	}
	return nil
}

// openReady takes the descriptor of --ready-fd. It refuses the Go runtime's own descriptors, which
// are neither files nor pipes nor sockets.
func openReady(fd int) (*os.File, error) {
	if fd < 0 {
		return nil, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("--ready-fd %d: %w; want the number of a descriptor that "+
			"is open for writing", fd, err)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE == unix.O_RDONLY || st.Mode&unix.S_IFMT == 0 ||
		fd == 2 {
		return nil, fmt.Errorf("--ready-fd %d: want a pipe, socket or file that is open "+
			"for writing, and not standard error", fd)
	}
	return os.NewFile(uintptr(fd), "ready-fd"), nil
}

// sayReady writes a newline to the descriptor of --ready-fd, and closes the descriptor. It does
// nothing if ready is nil.
func sayReady(ready *os.File, log *zap.Logger) {
	if ready == nil {
		return
	}
	_, err := ready.Write([]byte("\n"))
	if err = errors.Join(err, ready.Close()); err != nil {
		log.Warn("--ready-fd", zap.Error(err))
	}
}
