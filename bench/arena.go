package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// An arena has everything that runs throughout the benchmark: the sink, which is the TLS server of
// all clients (src/sink.c), tlsd, and the installed proxies.
type arena struct {
	dir string // programs, configurations, logs, the socket
	id  identity

	plugin string // TlsPlugin.so
	socket string // of tlsd

	sink        *process
	port        int // where the sink sends no session tickets
	ticketsPort int // where the sink sends session tickets

	tlsd    *process
	proxies map[string]*proxy
}

// openArena starts everything. If it returns an arena together with an error, the caller must close
// that arena, which has the processes that were started.
func openArena(ctx context.Context, bin, dir string, p plan) (*arena, error) {
	a := &arena{dir: dir, plugin: filepath.Join(bin, "TlsPlugin.so"),
		socket: filepath.Join(dir, "tlsd.sock"), proxies: map[string]*proxy{}}
	for _, f := range []string{a.plugin, filepath.Join(bin, "tlsd")} {
		if _, err := os.Stat(f); err != nil {
			return nil, fmt.Errorf("%w (make build makes it)", err)
		}
	}
	var err error
	if a.id, err = newIdentity(dir); err != nil {
		return nil, err
	}
	if err := a.startSink(); err != nil {
		return a, err
	}
	if err := a.startTLSD(filepath.Join(bin, "tlsd"), p); err != nil {
		return a, err
	}
	for _, kind := range proxyKinds {
		p, err := kind.start(ctx, a)
		if errors.Is(err, exec.ErrNotFound) {
			say("ABSENT: %s is not installed (the package %s); it is missing in the "+
				"comparison", kind.name, kind.pkg)
			continue
		}
		if p != nil {
			a.proxies[kind.name] = p
		}
		if err != nil {
			return a, err
		}
	}
	return a, nil
}

func (a *arena) close() {
	for _, p := range a.proxies {
		p.stop()
	}
	for _, p := range []*process{a.tlsd, a.sink} {
		if p != nil {
			p.stop()
		}
	}
}

// startSink starts the sink and reads its ports.
func (a *arena) startSink() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	a.sink, err = launch(a.dir, "sink", w, nil, filepath.Join(a.dir, "sink"),
		a.id.cert, a.id.key)
	w.Close()
	if err != nil {
		return err
	}
	if line, err := firstLine(r); err != nil {
		return fmt.Errorf("the sink has not started: %w: %s", err, a.sink.trouble())
	} else if _, err := fmt.Sscan(line, &a.port, &a.ticketsPort); err != nil {
		return fmt.Errorf("the sink has said %q: %w", line, err)
	}
	return nil
}

// startTLSD starts the daemon, and waits until it listens. The daemon has its default settings, but
// --max-sessions is raised if the plan has more sessions than the default. The default of
// --max-sessions is the number in full.sessions.
func (a *arena) startTLSD(exe string, p plan) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	argv := []string{exe, "--socket", a.socket, "--log-level", "warn", "--ready-fd", "3"}
	if p.sessions > full.sessions {
		argv = append(argv, "--max-sessions", strconv.Itoa(p.sessions))
	}
	a.tlsd, err = launch(a.dir, "tlsd", nil, []*os.File{w}, argv...)
	w.Close()
	if err != nil {
		return err
	}
	if _, err := firstLine(r); err != nil {
		return fmt.Errorf("tlsd has not started: %w: %s", err, a.tlsd.trouble())
	}
	return nil
}

// startTimeout is the limit for the start of a process that runs during the whole benchmark.
const startTimeout = 10 * time.Second

func firstLine(r *os.File) (string, error) {
	r.SetReadDeadline(time.Now().Add(startTimeout))
	return bufio.NewReader(r).ReadString('\n')
}

// awaitPort waits until a program listens on a port of 127.0.0.1.
func awaitPort(ctx context.Context, port int, p *process) error {
	for end := time.Now().Add(startTimeout); time.Now().Before(end); {
		c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.gone:
			return fmt.Errorf("it has ended: %s", p.trouble())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("nobody listens on its port %d after %v: %s", port, startTimeout,
		p.trouble())
}

// freePort returns a port of 127.0.0.1 that no program used a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// versions asks every program for its version. If the program gives none, its version is "unknown".
// A proxy that is not installed has the version "absent".
func (a *arena) versions(ctx context.Context) map[string]string {
	v := map[string]string{}
	ask := func(who string, pick func(string) string, argv ...string) {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = a.env()
		out, _ := cmd.CombinedOutput()
		if v[who] = strings.TrimSpace(pick(string(out))); v[who] == "" {
			v[who] = "unknown"
		}
	}
	line := func(s string) string { first, _, _ := strings.Cut(s, "\n"); return first }
	ask("libssl of the C programs", line, filepath.Join(a.dir, "client-inprocess"), "-c",
		a.id.ca, "version")
	ask("libssl of tlsd", line, filepath.Join(a.dir, "client-plugin"), "-c", a.id.ca, "-l",
		a.plugin, "version")
	ask("tlsd", line, filepath.Join(filepath.Dir(a.plugin), "tlsd"), "--version")
	for _, kind := range proxyKinds {
		v[kind.name] = "absent"
		if a.proxies[kind.name] != nil {
			ask(kind.name, kind.version, append([]string{kind.exe}, kind.versionArg)...)
		}
	}
	return v
}

// env is the environment of a client.
func (a *arena) env() []string {
	return append(os.Environ(), "TLSD_SOCKET="+a.socket, "TLSD_AUTOSTART=0")
}
