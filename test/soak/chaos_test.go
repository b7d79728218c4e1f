package soak

import (
	"bufio"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testd"
)

// The functions of this file disturb the daemon while the callers play. Before an act that may end
// a session, the function notes which scenes are excused: it sets doomed, or changes the epoch.

// killWorkers kills the worker of some session now and then.
func (a *arena) killWorkers(random *rand.Rand) {
	signals := []unix.Signal{unix.SIGKILL, unix.SIGKILL, unix.SIGSEGV, unix.SIGABRT}
	// The supervisor's watchdog ends a stopped worker. If the supervisor is killed first,
	// nothing ends this worker.
	if !a.restarts {
		signals = append(signals, unix.SIGSTOP)
	}
	for {
		a.pause(random, a.killing[0], a.killing[1])
		if a.ctx.Err() != nil {
			return
		}
		sig := signals[random.IntN(len(signals))]
		a.mu.Lock()
		for victim := range a.sessions { // any one, because a map has no order
			if victim.doomed.Load() {
				continue
			}
			a.killed[victim.pid] = time.Now()
			for s := range a.sessions {
				if s.pid == victim.pid {
					s.doomed.Store(true)
				}
			}
			if err := unix.PidfdSendSignal(victim.pidfd, sig, nil, 0); err == nil {
				a.figures.add("kills by "+unix.SignalName(sig), 1)
			}
			break
		}
		for pid, at := range a.killed { // after some time, the kernel reuses a pid
			if time.Since(at) > 2*time.Minute {
				delete(a.killed, pid)
			}
		}
		a.mu.Unlock()
	}
}

// killCallers runs callers in processes of their own, and kills them soon.
func (a *arena) killCallers(random *rand.Rand) {
	for {
		a.pause(random, 200*time.Millisecond, 2*time.Second)
		if a.ctx.Err() != nil {
			return
		}
		cmd := exec.Command("/proc/self/exe")
		a.daemon.RLock()
		cmd.Env = append(os.Environ(), callerEnv+"="+a.d.Socket)
		a.daemon.RUnlock()
		text := a.conversation()
		cmd.Stdin = strings.NewReader(text[:random.IntN(len(text))])
		out, err := cmd.StdoutPipe()
		if err == nil {
			gone := make(chan struct{})
			sent := make(chan struct{})
			err = testd.Spawn(cmd, func() { <-sent; cmd.Wait(); close(gone) })
			if err == nil {
				bufio.NewReader(out).ReadString('\n')
				close(sent)
				cmd.Process.Kill()
				<-gone
				a.figures.add("kills of callers", 1)
			}
		}
		if err != nil {
			a.fail("a caller cannot be started: %v", err)
		}
	}
}

// changeBundles replaces the file with the CA by another file that also has the CA.
func (a *arena) changeBundles(random *rand.Rand) {
	for n := 0; ; n++ {
		a.pause(random, 20*time.Millisecond, time.Second)
		if a.ctx.Err() != nil {
			return
		}
		pem := a.ca.PEM()
		if n%2 == 0 {
			pem = append(a.stranger.PEM(), pem...)
		}
		err := os.WriteFile(a.bundle+".new", pem, 0o600)
		if err == nil {
			err = os.Rename(a.bundle+".new", a.bundle)
		}
		if err != nil {
			a.fail("the bundle cannot be replaced: %v", err)
		}
		a.figures.add("bundles changed", 1)
	}
}

// hangUp sends SIGHUP, which must have no effect on sessions.
func (a *arena) hangUp(random *rand.Rand) {
	for {
		a.pause(random, 500*time.Millisecond, 3*time.Second)
		if a.ctx.Err() != nil {
			return
		}
		a.daemon.RLock()
		pid := a.d.PID
		_ = unix.Kill(pid, unix.SIGHUP)
		a.daemon.RUnlock()
		a.figures.add("SIGHUP", 1)
	}
}

// restart ends the daemon by SIGTERM, by SIGTERM twice, or by SIGKILL. It starts the daemon again
// with either isolation.
func (a *arena) restart(random *rand.Rand) {
	for a.restarts {
		a.pause(random, 2*time.Second, 6*time.Second)
		if a.ctx.Err() != nil {
			return
		}
		way := [][]syscall.Signal{{syscall.SIGTERM}, {syscall.SIGTERM, syscall.SIGTERM},
			{syscall.SIGKILL}}[random.IntN(3)]
		flags := [][]string{{"--isolation=session"},
			{"--isolation=shared", "--workers=2"}}[random.IntN(2)]
		a.epoch.Add(1)
		a.daemon.Lock()
		err := a.d.Restart(a.t, way, append(a.commonFlags(), flags...)...)
		a.daemon.Unlock()
		a.epoch.Add(1) // also excuses the scenes that have begun during the restart
		name := "restarts by SIGTERM"
		switch {
		case way[0] == syscall.SIGKILL:
			name = "restarts by SIGKILL"
		case len(way) == 2:
			name = "restarts by SIGTERM twice"
		}
		if exit, ok := err.(*exec.ExitError); err != nil &&
			(!ok || way[0] == syscall.SIGTERM && exit.ExitCode() != 1) {
			a.fail("%s: the daemon ends with %v; want no error, or status 1 "+
				"after SIGTERM", name, err)
		}
		a.figures.add(name, 1)
	}
}
