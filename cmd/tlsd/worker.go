package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"tlsd/internal/confine"
	"tlsd/internal/handoff"
	"tlsd/internal/vitals"
	"tlsd/openssl"
	"tlsd/rpc"
	"tlsd/session"
)

// This file has the worker. A worker is a process of the program tlsd that the supervisor has
// started (see package handoff). The rules:
//
//   - A worker for another user than the daemon's becomes that user before it loads the library and
//     before it reads anything from the caller.
//   - A worker loads the library before it reports Ready, and never unloads it.
//   - Only the end of its channel tells a worker to exit. A worker ignores the signals that a
//     terminal or a service manager sends to the whole process group: the supervisor handles them.
//   - A worker confines itself (see package confine). At the start it drops capabilities and limits
//     its access to files. When the library is loaded, it installs the filter of system calls.
//   - A worker has keys in its memory. So it leaves no core file, and its user's other programs
//     cannot trace it. If a program traces the worker already, the worker serves no session.

const (
	// longestReason limits the text about a library that cannot be loaded, in bytes.
	longestReason = 16 << 10
	// endTimeout limits the time for the sessions to end when the supervisor is gone.
	endTimeout = 5 * time.Second
)

// workerConfig is the configuration that the supervisor sends to a worker.
type workerConfig struct {
	Libssl        string           `json:"libssl"`
	Version       string           `json:"version"`
	Timeouts      session.Timeouts `json:"timeouts"`
	Limits        session.Limits   `json:"limits"`
	Messages      rpc.Limits       `json:"messages"`
	AnswerTimeout time.Duration    `json:"answerTimeout"`
	IdleTimeout   time.Duration    `json:"idleTimeout"`
	MaxMemory     int64            `json:"maxMemory"` // 0: no limit
	LogLevel      string           `json:"logLevel"`

	SkipFailedHandshakes bool `json:"skipFailedHandshakes"`
	ReloadCertificates   bool `json:"reloadCertificates"`
	KeyLog               bool `json:"keyLog"` // descriptor handoff.KeyLogFD is open
}

// ps(1) and top(1) show the name of the first thread. An init function always runs on that thread.
func init() {
	if os.Args[0] == handoff.Arg0 {
		nameThread("tlsd-worker")
	}
}

// runWorker is the worker's main. It returns the exit status.
func runWorker() int {
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE)
	measures := confine.Restart()
	measures.Conceal()

	log, _ := newLog(os.Stderr, "info", false)
	channel, err := handoff.Open()
	if err != nil {
		log.Error("this is a worker of tlsd, to be started by tlsd only", zap.Error(err))
		return 2
	}
	defer channel.Close()
	page, err := vitals.Open()
	if err != nil {
		log.Error("the page of vitals cannot be opened", zap.Error(err))
		return 2
	}
	var first handoff.ToWorker
	if err := channel.Receive(&first); errors.Is(err, io.EOF) {
		return 0
	} else if err != nil {
		log.Error("no configuration", zap.Error(err))
		return 1
	}
	var cfg workerConfig
	if err := json.Unmarshal(first.Config, &cfg); err != nil {
		log.Error("bad configuration", zap.Error(err))
		return 1
	}
	if first.As != nil {
		if err := measures.Become(*first.As); err != nil {
			_ = channel.Send(handoff.FromWorker{Unfit: err.Error()}, nil)
			return 1
		}
	}
	level := zap.NewAtomicLevelAt(levelOf(cfg.LogLevel))
	log, _ = newLogAt(os.Stderr, os.Stderr, level, false)
	w := &workerProcess{
		cfg: cfg, channel: channel, page: page, measures: measures, log: log, level: level,
		outbox: make(chan handoff.FromWorker, outboxLength), sent: make(chan struct{}),
	}
	return w.run()
}

// errNoSupervisor is the error of sessions when the channel to the supervisor ends: tlsd stops, or
// has died.
var errNoSupervisor = errors.New("the session has been ended, because tlsd was stopped")

type workerProcess struct {
	cfg      workerConfig
	channel  *handoff.Conn
	page     *vitals.Page
	log      *zap.Logger
	level    zap.AtomicLevel  // the level of log
	measures confine.Measures // nil: the worker is not confined

	serving sync.WaitGroup
	live    liveSessions
	shown   certificateSlots
	outbox  chan handoff.FromWorker // closed when all sessions have ended
	sent    chan struct{}           // closed when runOutbox has ended
}

func (w *workerProcess) run() int {
	go w.runOutbox()
	var keyLog func(string)
	if w.cfg.KeyLog {
		keyLog = w.keyLog()
	}
	engine, ready := loadEngine(w.cfg.Libssl, w.page, keyLog)
	if w.cfg.MaxMemory > 0 {
		if err := confine.LimitMemory(w.cfg.MaxMemory); err != nil {
			w.log.Error("the worker's memory is not limited", zap.Error(err))
		}
	}
	if w.measures != nil {
		w.measures.Finish() // the library is loaded
		ready.Confinement = w.measures
		if err := confine.Untraced(); err != nil {
			w.sendMessage(handoff.FromWorker{Unfit: err.Error()})
			return w.exit(io.EOF)
		}
	}
	if err := w.channel.Send(handoff.FromWorker{Ready: &ready}, nil); err != nil {
		return w.exit(err)
	}
	return w.exit(w.receive(engine))
}

// receive carries out the supervisor's messages until the channel ends, and returns the reason.
func (w *workerProcess) receive(engine session.Engine) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(errNoSupervisor) // ends the sessions
	for {
		var msg handoff.ToWorker
		conn, err := w.channel.ReceiveConn(&msg)
		if errors.Is(err, handoff.ErrNotTaken) && msg.Session != nil {
			// Only the new session has failed; the worker's other sessions go on.
			w.report(handoff.Ended{Number: msg.Session.Number, NotTaken: true,
				Error: err.Error()})
			continue
		}
		if err != nil {
			return err
		}
		if conn == nil && w.carryOut(&msg) {
			continue
		}
		if msg.Session == nil || conn == nil {
			w.log.Error("a message of the supervisor is unknown or not complete")
			if conn != nil {
				conn.Close()
			}
			continue
		}
		w.serve(ctx, engine, msg.Session, conn)
	}
}

// serve begins a session.
func (w *workerProcess) serve(ctx context.Context, engine session.Engine, begun *handoff.Session,
	conn *net.UnixConn) {
	notes, err := w.page.Session(begun.Slot)
	if err == nil && begun.Policy == nil {
		err = errors.New("it has no policy")
	}
	if err != nil {
		w.log.Error("a session cannot be served", zap.Error(err))
		conn.Close()
		w.ended(begun.Number, err, nil)
		return
	}
	ctx, end := context.WithCancelCause(ctx)
	began, over := w.live.add(begun.Number, end)
	w.serving.Go(func() {
		defer end(nil)
		note, endAudit := w.auditor(begun.Number)
		observer := newObserver(w.log, begun.Number)
		err := rpc.Serve(ctx, conn, rpc.Config{
			Session: session.Config{
				Engine: engine, Timeouts: w.cfg.Timeouts, Limits: w.cfg.Limits,
				SkipFailedHandshakes: w.cfg.SkipFailedHandshakes,
				ReloadCertificates:   w.cfg.ReloadCertificates,
				Policy:               *begun.Policy,
				Audit:                note,
				Observer:             observer,
				Meter:                meter{w.page, &w.shown},
			},
			Limits:        w.cfg.Messages,
			Version:       w.cfg.Version,
			AnswerTimeout: w.cfg.AnswerTimeout,
			IdleTimeout:   w.cfg.IdleTimeout,
			Watcher:       notes,
			Confinement:   w.measures,
			Began:         began,
		})
		over()
		endAudit()
		if why := (&orderedEnd{}); errors.As(context.Cause(ctx), &why) {
			err = why
		}
		w.ended(begun.Number, err, observer.totals)
	})
}

// ended reports the end of a session. The report is sent after the session's other reports, because
// all of them go through the outbox. With --isolation=session, the supervisor then closes the
// worker's channel.
func (w *workerProcess) ended(number uint64, err error, done *handoff.Totals) {
	e := handoff.Ended{Number: number, Totals: done}
	if err != nil {
		e.Error = err.Error()
	}
	w.report(e)
}

func (w *workerProcess) report(e handoff.Ended) { w.outbox <- handoff.FromWorker{Ended: &e} }

// sendMessage sends a message that has no answer.
func (w *workerProcess) sendMessage(msg handoff.FromWorker) {
	if err := w.channel.Send(msg, nil); err != nil {
		w.log.Debug("the supervisor is gone", zap.Error(err))
	}
}

// exit waits until the sessions have ended, but at most endTimeout. It returns the exit status.
func (w *workerProcess) exit(why error) int {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		w.serving.Wait()
		close(w.outbox)
		<-w.sent
	}()
	select {
	case <-gone:
	case <-time.After(endTimeout):
		w.log.Error("sessions did not end in time", zap.Duration("after", endTimeout))
		return 1
	}
	if !errors.Is(why, io.EOF) && !errors.Is(why, unix.EPIPE) &&
		!errors.Is(why, unix.ECONNRESET) {
		w.log.Error("the channel to the supervisor failed", zap.Error(why))
		return 1
	}
	return 0
}

// loadEngine loads the library. If the load fails, it returns the stub engine, whose errors say why
// the load has failed.
func loadEngine(path string, watcher openssl.Watcher, keyLog func(string)) (
	session.Engine, handoff.Ready) {
	lib, err := openssl.Load(path)
	if err != nil {
		why := err.Error()
		return session.Stub(err), handoff.Ready{Backend: "stub",
			Error: why[:min(len(why), longestReason)]}
	}
	lib.Watcher, lib.KeyLog = watcher, keyLog
	return session.OpenSSL(lib), handoff.Ready{Backend: "openssl", Version: lib.Version(),
		Path: lib.Path()}
}
