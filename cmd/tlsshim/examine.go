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

// This file collects facts. The judgement is in findings.go.

// facts has everything that doctor's findings depend on.
type facts struct {
	env     map[string]string // the variables in the list watched (below) that are set
	uid     int               // the effective user
	conf    client.Conf
	confErr error    // why client.conf cannot be used; then there is a probe only with --socket
	probes  []probe  // up to the first socket that answers
	unused  []string // further sockets that exist
	systems []string // sockets of the system's tlsd that exist
	answers bool     // the socket of the last probe answers

	hello   wire.Hello
	peer    client.Peer
	info    wire.Info
	infoErr error
	trips   []time.Duration // round trips of tls.Backend
	tripErr error
	tried   rehearsal

	modules    []string // the modules of nsswitch.conf that tlsd does not ask
	runtimeDir fileFact // XDG_RUNTIME_DIR
	exeErr     error    // why the program of TLSD_EXE cannot be started
	tlsd       []string // paths of tlsd
	plugin     []string // paths of TlsPlugin.so
}

// The list watched has the environment variables that doctor examines.
var watched = []string{"TLSD_SOCKET", "TLSD_EXE", "TLSD_AUTOSTART", "XDG_RUNTIME_DIR",
	"SSL_CERT_FILE", "SSL_CERT_DIR"}

// probe has the facts about one socket.
type probe struct {
	path string
	file fileFact
	err  error // of client.Dial
}

// fileFact is a result of stat(2).
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

// examine collects the facts. --timeout limits each question to the daemon.
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
			_, f.exeErr = exec.LookPath(abs) // abs has a slash, so PATH is not searched
		}
	}
	self, _ := os.Executable()
	f.tlsd = found(f.env["TLSD_EXE"], self, c.getenv("PATH"), "tlsd", "tlsd")
	f.plugin = found("", self, c.getenv("PATH"), "TlsPlugin.so", "../lib/tlsd/TlsPlugin.so")

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

// ask asks the daemon about itself.
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

// foreignModules returns those modules in the text of nsswitch.conf(5) that tlsd does not ask for
// addresses. The lines "hosts:" list the modules. Tlsd has Go's resolver, which knows only the
// modules files and dns.
func foreignModules(text string) []string {
	var found []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		modules, ok := strings.CutPrefix(strings.TrimSpace(line), "hosts:")
		if !ok {
			continue
		}
		action := false // inside an action such as [NOTFOUND=return], which may have blanks
		modules = strings.NewReplacer("[", " [ ", "]", " ] ").Replace(modules)
		for _, word := range strings.Fields(modules) {
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

// found() looks for a file at these paths, in this order:
//
//   - the parameter chosen, unless it is "";
//   - the parameters name and installed, as paths relative to tlsshim's folder. The parameter self
//     is the path of tlsshim;
//   - the parameter name, as a path relative to each absolute folder of the parameter dirs, which
//     is a value of $PATH.
//
// It returns the paths at which there is a regular file. It returns each file only once.
func found(chosen, self, dirs, name, installed string) []string {
	candidates := []string{chosen}
	if self != "" {
		dir := filepath.Dir(self)
		candidates = append(candidates, filepath.Join(dir, name),
			filepath.Join(dir, installed))
	}
	for _, dir := range filepath.SplitList(dirs) {
		if filepath.IsAbs(dir) { // the plugin does not search relative folders either
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
