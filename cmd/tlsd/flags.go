package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"tlsd/rpc"
	"tlsd/session"
)

// options are the settings of a start.
type options struct {
	socket      string
	socketMode  fs.FileMode
	socketGroup int // the socket's; -1: that of tlsd
	allowUID    []uint32
	allowGID    []uint32
	policy      string
	adminSocket string // "": not given; none: no socket

	libssl         string
	requireOpenSSL string // "no" or "yes"
	confine        string // "auto", "require" or "off"
	readable       []string

	failedHandshakes   string // "raise" or "skip"
	reloadCertificates string // "off" or "auto"
	keyLog             string
	auditLog           string
	isolation          string // "session" or "shared"
	workers            int
	spare              int

	timeouts      session.Timeouts
	answerTimeout time.Duration
	idleTimeout   time.Duration
	drainTimeout  time.Duration
	idleExit      time.Duration
	watchdog      time.Duration

	maxMemory         int // bytes
	maxSessions       int
	maxSessionsPerUID int // 0: not given
	limits            session.Limits
	messages          rpc.Limits

	logLevel  string
	logFormat string
	readyFD   int

	config string // the configuration file; noConfig: none

	check       bool
	printConfig bool
	version     bool
	help        bool

	// origin says of each setting that was given where: a flag, a variable, or a file and a
	// line.
	origin map[string]string
}

// A flagInfo is a flag as the help shows it. A heading stands before its first
// flag.
type flagInfo struct {
	heading, name, arg, preset, text string
	value                            flag.Value
}

// flagTable lists the flags in the order of the help. It sets o to the defaults.
func flagTable(o *options) []flagInfo {
	defaults := session.Config{}.WithDefaults()
	*o = options{
		socketGroup: -1, isolation: "session", confine: "auto", requireOpenSSL: "no", failedHandshakes: "raise", reloadCertificates: "off", workers: runtime.NumCPU(), spare: 1,
		timeouts: defaults.Timeouts, answerTimeout: 30 * time.Second, idleTimeout: 12 * time.Hour,
		drainTimeout: 30 * time.Second, watchdog: 10 * time.Second,
		maxSessions: 1000, limits: defaults.Limits, messages: rpc.Limits{}.WithDefaults(),
		logLevel: "info", logFormat: "auto", readyFD: -1,
	}
	return []flagInfo{
		{"Socket", "socket", "PATH", "/run/tlsd.sock for root, else $XDG_RUNTIME_DIR/tlsd.sock",
			"where to listen", (*text)(&o.socket)},
		{"", "socket-mode", "MODE", "0600; 0660 for one --allow-gid, whose it is then; 0666 for more users",
			"permissions of the socket, octal", (*mode)(&o.socketMode)},
		{"", "allow-uid", "USER,…", "none",
			"users that may connect besides tlsd's own; names or numbers; may be repeated", &ids{&o.allowUID, "user", lookupUser}},
		{"", "allow-gid", "GROUP,…", "none",
			"groups, primary or supplementary, whose members may connect; SECURITY.md says how they count", &ids{&o.allowGID, "group", lookupGroup}},
		{"", "policy", "FILE", "none: scripts may do what their user may",
			"what scripts may do, by user; see tlsd-policy(5); read again on SIGHUP", (*text)(&o.policy)},

		{"", "admin-socket", "PATH",
			"/run/tlsd/admin.sock for root, if --socket is not given; else none",
			"where root and tlsd's own user see and end sessions, by tlsshim; none: nowhere",
			(*text)(&o.adminSocket)},

		{"Workers", "isolation", "MODE", "session",
			"session: a process for each session; shared: a fixed number of processes for all", &choice{&o.isolation, []string{"session", "shared"}}},
		{"", "workers", "N", "the number of processors",
			"number of processes with --isolation=shared", &number{&o.workers, 1, 1024}},
		{"", "spare", "N", "1",
			"processes kept ready: for tlsd's own user, with --isolation=session, and for other users", &number{&o.spare, 0, 1024}},
		{"", "libssl", "PATH", "libssl.so.4, .so.3, .so.1.1, then the platform's names",
			"the OpenSSL library", (*text)(&o.libssl)},

		{"", "confine", "MODE", "auto",
			"auto: take from workers all that the kernel lets be taken; require: all, or do not start; off: nothing", &choice{&o.confine, []string{"auto", "require", "off"}}},
		{"", "require-openssl", "MODE", "no: without one, every call fails with an error that says so",
			"yes: do not start without a usable OpenSSL", &choice{&o.requireOpenSSL, []string{"no", "yes"}}},
		{"", "readable", "PATH,…", "all that their users may read",
			"files and folders that workers may read, besides the system's; needs --confine; may be repeated", &paths{&o.readable}},
		{"", "failed-handshakes", "MODE", "raise",
			"raise: an Accept fails with the handshake of its client; skip: it goes on, and the log has the failure", &choice{&o.failedHandshakes, []string{"raise", "skip"}}},
		{"", "reload-certificates", "MODE", "off",
			"auto: servers take certificates that were renewed on disk, for handshakes from then on", &choice{&o.reloadCertificates, []string{"off", "auto"}}},

		{"Times", "connect-timeout", "TIME", "30s",
			"for NewClient: the look-up of the name and all addresses together", &duration{&o.timeouts.Connect, false}},
		{"", "handshake-timeout", "TIME", "30s",
			"for one Handshake", &duration{&o.timeouts.Handshake, false}},
		{"", "accept-handshake-timeout", "TIME", "10s",
			"for the handshake of one client of Accept", &duration{&o.timeouts.AcceptHandshake, false}},
		{"", "accept-timeout", "TIME", "0, never",
			"for Accept to get a client; the context goes on listening", &duration{&o.timeouts.Accept, true}},
		{"", "read-timeout", "TIME", "0, never",
			"for Read to get data", &duration{&o.timeouts.Read, true}},
		{"", "write-timeout", "TIME", "30s",
			"for each 64 KiB of a Write to be sent", &duration{&o.timeouts.Write, false}},
		{"", "close-timeout", "TIME", "1s",
			"for written data to reach the peer, after Close has been answered", &duration{&o.timeouts.Close, false}},
		{"", "answer-timeout", "TIME", "30s",
			"for the caller to read one answer; then its session ends", &duration{&o.answerTimeout, false}},
		{"", "session-idle-timeout", "TIME", "12h",
			"for a session that has no call in flight and whose caller sends nothing; then it ends; 0: never", &duration{&o.idleTimeout, true}},
		{"", "drain-timeout", "TIME", "30s",
			"for open sessions to end when tlsd stops; then tlsd ends them", &duration{&o.drainTimeout, true}},
		{"", "watchdog", "TIME", "10s",
			"for a worker with sessions to answer, and for one call into OpenSSL; then tlsd kills it; 0: never", &duration{&o.watchdog, true}},
		{"", "idle-exit", "TIME", "0, never",
			"leave after so long without a session", &duration{&o.idleExit, true}},

		{"Limits", "max-sessions", "N", "1000",
			"sessions at the same time", &number{&o.maxSessions, 1, 1 << 20}},
		{"", "max-sessions-per-uid", "N", "all, or with --allow-uid or --allow-gid a quarter",
			"sessions of one user at the same time", &number{&o.maxSessionsPerUID, 1, 1 << 20}},
		{"", "max-handles", "N", "65536",
			"open handles of one session", &number{&o.limits.Handles, 1, 1 << 30}},
		{"", "max-calls", "N", "4096",
			"calls of one session in flight", &number{&o.limits.Calls, 1, 1 << 20}},
		{"", "max-pending", "N", "128",
			"clients per server context that wait for an Accept", &number{&o.limits.Pending, 1, 1 << 16}},
		{"", "max-message", "SIZE", "23MiB",
			"one message", &size{&o.messages.Message, 1 << 10, 1 << 30, false}},
		{"", "max-nesting", "N", "64",
			"levels of arrays and objects in a message", &number{&o.messages.Nesting, 4, 10000}},
		{"", "max-buffered", "SIZE", "64MiB",
			"data that one session's waiting calls keep in memory", &size{&o.messages.Buffered, 1 << 10, 1 << 40, false}},
		{"", "max-memory", "SIZE", "0, none",
			"memory that one worker may use beyond what it has at its start", &size{&o.maxMemory, 64 << 20, 1 << 50, true}},

		{"Log and service", "log-level", "LEVEL", "info",
			"the least level to log: debug, info, warn, error", &choice{&o.logLevel, []string{"debug", "info", "warn", "error"}}},
		{"", "log-format", "FORMAT",
			"auto: console on a terminal, journal under systemd, else json",
			"form of the log; journal: systemd's, with priorities and fields",
			&choice{&o.logFormat, []string{"auto", "console", "json", "journal"}}},
		{"", "audit-log", "FILE", "none: audit lines are in the log",
			"append audit lines to this file, not to the log; opened again on SIGHUP",
			(*text)(&o.auditLog)},
		{"", "key-log", "FILE", "none",
			"append the secrets of all connections to this file, to decrypt captured traffic with; for finding faults only", (*text)(&o.keyLog)},
		{"", "ready-fd", "N", "none",
			"a descriptor to write a newline to when tlsd listens; then tlsd closes it", &number{&o.readyFD, 1, 1 << 20}},

		{"Other", "config", "FILE", "/etc/tlsd/tlsd.toml for root, if it is there; else none",
			"the configuration file: TOML with the names of these flags as keys; none: read no file", (*text)(&o.config)},
		{"", "check", "", "", "examine everything that a start needs, print what the policy allows each user, and leave", (*boolean)(&o.check)},
		{"", "print-config", "", "", "print each setting and where it comes from, and leave", (*boolean)(&o.printConfig)},
		{"", "version", "", "", "print the version and leave", (*boolean)(&o.version)},
		{"", "help", "", "", "print this text and leave", (*boolean)(&o.help)},
	}
}

// sessionsPerUID is --max-sessions-per-uid, or what stands for it: no user can keep all others out.
func (o *options) sessionsPerUID() int {
	switch {
	case o.maxSessionsPerUID > 0:
		return o.maxSessionsPerUID
	case len(o.allowUID)+len(o.allowGID) > 0:
		return (o.maxSessions + 3) / 4
	}
	return o.maxSessions
}

// envName is the environment twin of a flag: --socket-mode is TLSD_SOCKET_MODE.
func envName(name string) string {
	return "TLSD_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// hasTwin says whether the environment can set the flag.
func (f flagInfo) hasTwin() bool { return f.arg != "" }

// parseOptions reads the settings: from the flags, else the environment, else the configuration
// file, else the default holds. Without --config and TLSD_CONFIG the file is config. After --help
// and --version nothing but the flags is read.
func parseOptions(args, environ []string, config string) (*options, error) {
	var o options
	table := flagTable(&o)
	if err := parseFlags(args, table, &o); err != nil || o.help || o.version {
		return &o, err
	}
	values, err := readEnvironment(environ, table)
	if err != nil {
		return nil, err
	}
	for _, f := range table {
		if v, ok := values[f.name]; ok && o.origin[f.name] == "" {
			if err := f.value.Set(v); err != nil {
				return nil, fmt.Errorf("invalid value %q of the environment variable %s: %w", v, envName(f.name), err)
			}
			o.origin[f.name] = envName(f.name)
		}
	}
	if o.config == "" {
		o.config = config
	}
	if o.config != noConfig {
		if err := useConfig(&o, table); err != nil {
			return nil, err
		}
	}
	return &o, o.finish()
}

// parseFlags reads the command line, and notes in o.origin which flags were given.
func parseFlags(args []string, table []flagInfo, o *options) error {
	set := flag.NewFlagSet("tlsd", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	for _, f := range table {
		set.Var(f.value, f.name, f.text)
	}
	set.BoolVar(&o.help, "h", false, "")
	if err := set.Parse(args); err != nil {
		return flagError(err, table)
	}
	if set.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: tlsd takes flags only", set.Arg(0))
	}
	o.origin = map[string]string{}
	set.Visit(func(f *flag.Flag) { o.origin[f.Name] = "--" + f.Name })
	return nil
}

// useConfig takes from the configuration file what neither flags nor the environment have set.
func useConfig(o *options, table []flagInfo) error {
	values, err := readConfig(o.config, table)
	if err != nil {
		return err
	}
	for _, f := range table {
		v, ok := values[f.name]
		if !ok || o.origin[f.name] != "" || v.list && v.text == "" {
			continue
		}
		at := fmt.Sprintf("%s:%d", o.config, v.line)
		if err := f.value.Set(v.text); err != nil {
			return fmt.Errorf("configuration file: %s: invalid value %q of %s: %w", at, v.text, f.name, err)
		}
		o.origin[f.name] = at
	}
	return nil
}

// finish checks settings against each other, and sets what follows from others.
func (o *options) finish() error {
	if len(o.readable) > 0 && o.confine == "off" {
		return errors.New("--readable needs --confine=auto or require: otherwise workers may read all that their users may")
	}
	if o.origin["socket-mode"] == "" {
		o.socketMode = 0o600
		switch {
		case len(o.allowUID) == 0 && len(o.allowGID) == 1:
			o.socketMode, o.socketGroup = 0o660, int(o.allowGID[0])
		case len(o.allowUID)+len(o.allowGID) > 0:
			o.socketMode = 0o666
		}
	}
	return nil
}

// flagError gives an error of package flag our spelling.
func flagError(err error, table []flagInfo) error {
	s := err.Error()
	if name, ok := strings.CutPrefix(s, "flag provided but not defined: -"); ok {
		var known []string
		for _, f := range table {
			known = append(known, "--"+f.name)
		}
		name = "--" + strings.TrimPrefix(name, "-")
		return fmt.Errorf("unknown flag %s%s", name, suggest(name, known))
	}
	s = strings.Replace(s, "for flag -", "for --", 1)
	s = strings.Replace(s, "for -", "for --", 1)
	s = strings.Replace(s, "for ---", "for --", 1)
	s = strings.Replace(s, "flag needs an argument: -", "a value is missing after --", 1)
	return errors.New(s)
}

// socketPath is where to listen.
func (o *options) socketPath() (string, error) {
	if o.socket != "" {
		return o.socket, nil
	}
	return defaultSocket(os.Geteuid(), os.Getenv)
}

// defaultSocket is the path for a start that names none.
func defaultSocket(uid int, getenv func(string) string) (string, error) {
	if uid == 0 {
		return "/run/tlsd.sock", nil
	}
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		return strings.TrimRight(dir, "/") + "/tlsd.sock", nil
	}
	return "", errors.New("where to listen: neither --socket nor TLSD_SOCKET nor XDG_RUNTIME_DIR is set; give --socket PATH")
}

// The values of flags. The error of Set says what is accepted.

type text string

func (t *text) String() string { return string(*t) }
func (t *text) Set(s string) error {
	if s == "" {
		return errors.New("want a path")
	}
	*t = text(s)
	return nil
}

type boolean bool

func (b *boolean) String() string   { return strconv.FormatBool(bool(*b)) }
func (b *boolean) IsBoolFlag() bool { return true }
func (b *boolean) Set(s string) error {
	v, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("want no value, or true or false")
	}
	*b = boolean(v)
	return nil
}

type mode fs.FileMode

func (m *mode) String() string { return fmt.Sprintf("%04o", *m) }
func (m *mode) Set(s string) error {
	v, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 32)
	if err != nil || v > 0o777 {
		return errors.New("want permissions in octal, from 0 to 0777")
	}
	*m = mode(v)
	return nil
}

type number struct {
	p        *int
	min, max int
}

func (n *number) String() string {
	if n.p == nil {
		return ""
	}
	return strconv.Itoa(*n.p)
}
func (n *number) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < n.min || v > n.max {
		return fmt.Errorf("want a whole number from %d to %d", n.min, n.max)
	}
	*n.p = v
	return nil
}

// size is a number of bytes, which may be given in KiB, MiB or GiB.
type size struct {
	p        *int
	min, max int
	zero     bool // 0 has a meaning
}

func (n *size) String() string {
	if n.p == nil {
		return ""
	}
	return strconv.Itoa(*n.p)
}
func (n *size) Set(s string) error {
	digits, unit := s, 1
	for i, name := range []string{"KiB", "MiB", "GiB"} {
		if rest, ok := strings.CutSuffix(s, name); ok {
			digits, unit = rest, 1<<(10*(i+1))
		}
	}
	v, err := strconv.Atoi(digits)
	if err != nil || v < 0 || v > n.max/unit || v*unit < n.min && !(n.zero && v == 0) {
		if n.zero {
			return fmt.Errorf("want 0 or a number of bytes from %d to %d, such as 512MiB or 1GiB", n.min, n.max)
		}
		return fmt.Errorf("want a number of bytes from %d to %d, such as 512KiB, 16MiB or 1048576", n.min, n.max)
	}
	*n.p = v * unit
	return nil
}

type duration struct {
	p    *time.Duration
	zero bool // 0 has a meaning
}

func (d *duration) String() string {
	if d.p == nil {
		return ""
	}
	return d.p.String()
}
func (d *duration) Set(s string) error {
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 || v == 0 && !d.zero {
		if d.zero {
			return errors.New("want a time such as 90s, 1m30s or 500ms, or 0")
		}
		return errors.New("want a time above 0 such as 90s, 1m30s or 500ms")
	}
	*d.p = v
	return nil
}

type choice struct {
	p    *string
	from []string
}

func (c *choice) String() string {
	if c.p == nil {
		return ""
	}
	return *c.p
}
func (c *choice) Set(s string) error {
	if !slices.Contains(c.from, s) {
		return fmt.Errorf("want one of %s", strings.Join(c.from, ", "))
	}
	*c.p = s
	return nil
}

// paths is a list of absolute paths that exist; each Set adds to it.
type paths struct{ p *[]string }

func (l *paths) String() string {
	if l.p == nil {
		return ""
	}
	return strings.Join(*l.p, ",")
}
func (l *paths) Set(s string) error {
	for _, path := range strings.Split(s, ",") {
		path = strings.TrimSpace(path)
		if !filepath.IsAbs(path) || strings.Contains(path, ":") {
			return fmt.Errorf("want absolute paths without colons, with commas between them; %q is none", path)
		}
		if _, err := os.Stat(path); err != nil {
			return err
		}
		*l.p = append(*l.p, path)
	}
	return nil
}

// ids is a list of users or groups; each Set adds to it.
type ids struct {
	p      *[]uint32
	what   string
	lookup func(string) (string, error)
}

func (l *ids) String() string {
	if l.p == nil {
		return ""
	}
	return strings.Trim(fmt.Sprint(*l.p), "[]")
}
func (l *ids) Set(s string) error {
	for _, name := range strings.Split(s, ",") {
		name = strings.TrimSpace(name)
		id, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			var number string
			if number, err = l.lookup(name); err == nil {
				id, err = strconv.ParseUint(number, 10, 32)
			}
		}
		if err != nil || id == 1<<32-1 { // (uid_t)-1 is nobody's
			return fmt.Errorf("want names or numbers of %ss, with commas between them; there is no %s %q", l.what, l.what, name)
		}
		*l.p = append(*l.p, uint32(id))
	}
	return nil
}

func lookupUser(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func lookupGroup(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}
