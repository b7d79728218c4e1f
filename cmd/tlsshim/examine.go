package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tlsd/rpc/client"
	"tlsd/rpc/wire"
)

// This file collects facts and judges nothing; findings.go judges.

// facts are all that doctor's findings follow from.
type facts struct {
	env     map[string]string // of watched, those that are set
	uid     int               // effective
	conf    client.Conf
	confErr error    // why it cannot be used; then there are no probes, unless --socket names one
	probes  []probe  // up to the first socket that answers
	unused  []string // sockets that are there and come after that
	systems []string // sockets of the system's tlsd that are there
	answers bool     // the last probe has no error

	hello   wire.Hello
	peer    client.Peer
	info    wire.Info
	infoErr error
	trips   []time.Duration // round trips of tls.Backend
	tripErr error
	tried   rehearsal

	modules    []string // that look up hosts on this machine, and that tlsd does not ask
	runtimeDir fileFact // XDG_RUNTIME_DIR
	exeErr     error    // why TLSD_EXE cannot be started, if it is set
	tlsd       []string // where one was found
	plugin     []string
}

// watched are the environment variables that matter.
var watched = []string{"TLSD_SOCKET", "TLSD_EXE", "TLSD_AUTOSTART", "XDG_RUNTIME_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR"}

// probe is what is known of one socket.
type probe struct {
	path string
	file fileFact
	err  error // as of client.Dial
}

// fileFact is what stat(2) says.
type fileFact struct {
	mode     os.FileMode
	uid, gid uint32
	err      error
}

func stat(path string) fileFact {
	info, err := os.Stat(path)
	if err != nil {
		return fileFact{err: err}
	}
	f := fileFact{mode: info.Mode()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		f.uid, f.gid = sys.Uid, sys.Gid
	}
	return f
}

// examine collects the facts. Each question to the daemon is bounded by --timeout.
func (c *command) examine(ctx context.Context) facts {
	f := facts{env: map[string]string{}, uid: os.Geteuid()}
	for _, name := range watched {
		if v := c.getenv(name); v != "" {
			f.env[name] = v
		}
	}
	if dir := f.env["XDG_RUNTIME_DIR"]; dir != "" {
		f.runtimeDir = stat(dir)
	}
	if exe := f.env["TLSD_EXE"]; exe != "" {
		if abs, err := filepath.Abs(exe); err != nil {
			f.exeErr = err
		} else {
			_, f.exeErr = exec.LookPath(abs) // has a slash: checks just this file
		}
	}
	own, _ := os.Executable()
	f.tlsd = found(f.env["TLSD_EXE"], own, c.getenv("PATH"), "tlsd", "tlsd")
	f.plugin = found("", own, c.getenv("PATH"), "TlsPlugin.so", "../lib/tlsd/TlsPlugin.so")

	if text, err := os.ReadFile("/etc/nsswitch.conf"); err == nil {
		f.modules = foreignModules(string(text))
	}
	f.conf, f.confErr = client.ReadConf()
	for _, path := range client.SystemSockets {
		if _, err := os.Lstat(path); err == nil {
			f.systems = append(f.systems, path)
		}
	}
	paths, err := c.sockets()
	if err != nil {
		return f
	}
	for _, path := range paths {
		p := probe{path: path, file: stat(path)}
		if f.answers {
			if p.file.err == nil {
				f.unused = append(f.unused, path)
			}
			continue
		}
		var session *client.Client
		session, p.err = c.dial(ctx, path)
		f.probes = append(f.probes, p)
		if p.err == nil {
			f.answers = true
			c.ask(ctx, session, &f)
			session.Close()
		}
	}
	return f
}

func (c *command) dial(ctx context.Context, path string) (*client.Client, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	return client.Dial(ctx, path)
}

// ask puts the questions to the daemon.
func (c *command) ask(outer context.Context, session *client.Client, f *facts) {
	ctx, cancel := c.bounded(outer)
	defer cancel()
	f.peer = session.Peer()
	f.hello, f.infoErr = session.Hello(ctx)
	if f.infoErr == nil {
		f.info, f.infoErr = session.Info(ctx)
	}
	for range 20 {
		begun := time.Now()
		if _, f.tripErr = session.Backend(ctx); f.tripErr != nil {
			return
		}
		f.trips = append(f.trips, time.Since(begun))
	}
	if f.infoErr == nil && f.info.Backend == "openssl" {
		ctx, cancel := c.bounded(outer)
		defer cancel()
		f.tried = rehearse(ctx, session)
	}
}

// foreignModules gives the modules of the line "hosts:" of an nsswitch.conf(5) that Go's resolver,
// which tlsd has, does not ask.
func foreignModules(text string) []string {
	var found []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		modules, ok := strings.CutPrefix(strings.TrimSpace(line), "hosts:")
		if !ok {
			continue
		}
		action := false // [NOTFOUND=return], which may have blanks
		for _, word := range strings.Fields(strings.NewReplacer("[", " [ ", "]", " ] ").Replace(modules)) {
			switch word {
			case "[":
				action = true
			case "]":
				action = false
			case "files", "dns":
			default:
				if !action {
					found = append(found, word)
				}
			}
		}
	}
	return found
}

// found looks for a file: the one named, if any; beside this program, and in a
// place relative to it; and on PATH. Each file is named once.
func found(named, own, path, name, installed string) []string {
	candidates := []string{named}
	if own != "" {
		dir := filepath.Dir(own)
		candidates = append(candidates, filepath.Join(dir, name), filepath.Join(dir, installed))
	}
	for _, dir := range filepath.SplitList(path) {
		if filepath.IsAbs(dir) { // as the plugin does, for safety
			candidates = append(candidates, filepath.Join(dir, name))
		}
	}
	var files []string
	var seen []os.FileInfo
next:
	for _, path := range candidates {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		for _, s := range seen {
			if os.SameFile(s, info) {
				continue next
			}
		}
		seen = append(seen, info)
		files = append(files, path)
	}
	return files
}
