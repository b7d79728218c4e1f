package supervisor

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tlsd/internal/confine"
	"tlsd/internal/handoff"
	"tlsd/internal/vitals"
)

// This file starts the process of a worker, and sends the worker its configuration.

// start makes a worker process. If the parameter other is true, the worker is for another user than
// the daemon's own. The second result is the worker's standard error. The caller must call watch()
// with both results, and later engage().
//
// The process always starts as the daemon's user. Between fork(2) and execve(2) it shares the
// daemon's memory, and the daemon waits for it. Another user who could stop the process at that
// moment would stop the daemon.
func (s *Supervisor) start(other bool) (*worker, io.ReadCloser, error) {
	channel, theirs, err := handoff.Pair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	sessions := 1
	if s.many(other) {
		sessions = s.MaxSessions
	}
	page, pageFile, err := vitals.New(sessions)
	if err != nil {
		channel.Close()
		return nil, nil, err
	}
	defer pageFile.Close()
	stderr, write, err := os.Pipe()
	if err != nil {
		channel.Close()
		page.Close()
		return nil, nil, err
	}
	defer write.Close()

	cmd := s.workerCommand(other, write, theirs, pageFile)
	err = s.forking.track(func() error { return withTimerSlack(timerSlack, cmd.Start) })
	if err != nil {
		channel.Close()
		page.Close()
		stderr.Close()
		return nil, nil, err
	}
	return &worker{
		pid:        cmd.Process.Pid,
		process:    cmd,
		channel:    channel,
		otherUser:  other,
		page:       page,
		started:    time.Now(),
		engaged:    make(chan struct{}),
		ready:      make(chan struct{}),
		gone:       make(chan struct{}),
		watchState: watchState{stays: map[int]stay{}},
		startDone:  func() {},
		sessions:   map[uint64]*session{},
		queries:    map[uint64]*query{},
		slots:      slots{count: sessions},
	}, stderr, nil
}

// many says whether a worker serves many sessions. The parameter other is as for start.
func (s *Supervisor) many(other bool) bool { return s.Shared && !other }

// workerCommand describes the process of a worker. The files channel and page become the
// descriptors handoff.FD and vitals.FD.
func (s *Supervisor) workerCommand(other bool, stderr, channel, page *os.File) *exec.Cmd {
	cmd := &exec.Cmd{
		Path:       thisProgram(),
		Args:       []string{handoff.Arg0},
		Env:        workerEnv(os.Environ(), s.many(other)),
		Dir:        "/",
		Stderr:     stderr,
		ExtraFiles: []*os.File{channel, page},
		// The terminal's Ctrl-C does not reach the worker, and the worker cannot ask for a
		// pass phrase on the terminal.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if s.KeyLog != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.KeyLog)
	}
	if s.Confine {
		ask := confine.EnvAsk
		if other {
			ask = confine.EnvAskOther
		}
		cmd.Env = append(cmd.Env, confine.EnvName+"="+ask)
		if len(s.Readable) > 0 {
			list := strings.Join(s.Readable, string(os.PathListSeparator))
			cmd.Env = append(cmd.Env, confine.EnvReadable+"="+list)
		}
	}
	return cmd
}

// thisProgram is the path of the running program. On Linux the path leads to the running program,
// even if its file has been replaced.
func thisProgram() string {
	if runtime.GOOS == "linux" {
		return "/proc/self/exe"
	}
	path, _ := os.Executable() // if there is no path, the start of the worker fails
	return path
}

// engage sends a worker its configuration, and the user that the worker becomes. If this user is
// nil, the worker keeps the daemon's own user. Call engage once for each worker.
func (s *Supervisor) engage(w *worker, as *confine.Identity) {
	err := w.channel.Send(handoff.ToWorker{Config: s.WorkerConfig, As: as}, nil)
	close(w.engaged) // after the configuration, which must be the first message
	// Another goroutine may call SetLogLevel while Send runs. So the loop looks at the level
	// after each Send, and sends again if the level has changed.
	for told, level := "", s.level(); err == nil && level != told; level = s.level() {
		err = w.channel.Send(handoff.ToWorker{LogLevel: level}, nil)
		told = level
	}
	if err != nil {
		w.kill() // watch handles the end
	}
}

// The worker of one session uses at most this number of processors at a time. The Go runtime takes
// memory for each processor that it may use, also in an idle worker: 1.2 MiB for 64 processors.
const processors = 8

// workerEnv returns the environment of a worker. From the daemon's environment it takes the
// variables that configure OpenSSL, the resolver and the Go runtime. It does not take
// SSLKEYLOGFILE, because some builds of OpenSSL would write the secrets of connections to the file
// that it names.
func workerEnv(env []string, many bool) []string {
	keep := []string{
		"LD_LIBRARY_PATH", "LD_PRELOAD", "MALLOC_ARENA_MAX",
		"OPENSSL_CONF", "OPENSSL_MODULES", "SSL_CERT_FILE", "SSL_CERT_DIR",
		"LANG", "TZ", "LOCALDOMAIN", "RES_OPTIONS",
		"GODEBUG", "GOMAXPROCS", "GOMEMLIMIT", "GOGC", "GOCOVERDIR",
	}
	// By default the C library gives each thread a heap of its own. Many connections then need
	// a tenth more memory (mallopt(3), M_ARENA_MAX). The daemon's own MALLOC_ARENA_MAX or
	// GOMAXPROCS comes later in the list, and replaces the value here.
	out := []string{"MALLOC_ARENA_MAX=1"}
	if !many {
		most := min(runtime.GOMAXPROCS(0), processors)
		out = append(out, "GOMAXPROCS="+strconv.Itoa(most))
	}
	for _, e := range env {
		for _, name := range keep {
			if strings.HasPrefix(e, name+"=") {
				out = append(out, e)
			}
		}
	}
	return out
}
