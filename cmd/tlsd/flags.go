package main

import (
	"flag"
	"io/fs"
	"runtime"
	"time"

	"tlsd/rpc"
	"tlsd/session"
)

// options has the settings of a start.
type options struct {
	socket      string
	socketMode  fs.FileMode
	socketGroup int // the group that the socket gets; -1: tlsd's own group
	allowUID    []uint32
	allowGID    []uint32
	policy      string
	adminSocket string // "": not set; none: no socket

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
	maxSessionsPerUID int // 0: not set
	limits            session.Limits
	messages          rpc.Limits

	logLevel  string
	logFormat string
	readyFD   int

	config string // the path of the configuration file, or none

	check       bool
	printConfig bool
	version     bool
	help        bool

	// origin has the source of each setting that is set: a flag, a variable, or a file and a
	// line.
	origin map[string]string
}

// A flagInfo describes a flag for the help. The first flag of a group has the group's heading.
type flagInfo struct {
	heading, name, arg, preset, text string
	value                            flag.Value
}

// flagTable lists the flags in the order of the help, and sets o to the defaults.
func flagTable(o *options) []flagInfo {
	defaults := session.Config{}.WithDefaults()
	*o = options{
		socketGroup: -1, isolation: "session", workers: runtime.NumCPU(), spare: 1,
		confine: "auto", requireOpenSSL: "no",
		failedHandshakes: "raise", reloadCertificates: "off",
		timeouts: defaults.Timeouts, answerTimeout: 30 * time.Second,
		idleTimeout: 12 * time.Hour, drainTimeout: 30 * time.Second,
		watchdog:    10 * time.Second,
		maxSessions: 1000, limits: defaults.Limits, messages: rpc.Limits{}.WithDefaults(),
		logLevel: "info", logFormat: "auto", readyFD: -1,
	}
	return []flagInfo{
		{"Socket", "socket", "PATH",
			"/run/tlsd.sock for root, else $XDG_RUNTIME_DIR/tlsd.sock",
			"path of the socket", (*text)(&o.socket)},
		{"", "socket-mode", "MODE",
			"0600 if no other user may connect; 0660 if only one group may; else 0666",
			"permissions of the socket, octal; if they are not set and only one " +
				"group may connect, this group gets the socket",
			(*mode)(&o.socketMode)},
		{"", "allow-uid", "USER,…", "none",
			"users that may connect besides tlsd's own; names or numbers; may be " +
				"repeated",
			&ids{&o.allowUID, "user", lookupUser}},
		{"", "allow-gid", "GROUP,…", "none",
			"groups, primary or supplementary, whose members may connect; " +
				"SECURITY.md has the details",
			&ids{&o.allowGID, "group", lookupGroup}},
		{"", "policy", "FILE", "none: scripts may do what their user may",
			"what each user's scripts may do; see tlsd-policy(5); read again on SIGHUP",
			(*text)(&o.policy)},

		{"", "admin-socket", "PATH",
			"/run/tlsd/admin.sock for root, if --socket is not given; else none",
			"socket by which tlsshim shows and ends sessions, for root and tlsd's " +
				"own user; none: no socket",
			(*text)(&o.adminSocket)},

		{"Workers", "isolation", "MODE", "session",
			"session: a process for each session; shared: a fixed number of " +
				"processes for all",
			&choice{&o.isolation, []string{"session", "shared"}}},
		{"", "workers", "N", "the number of processors",
			"number of processes with --isolation=shared",
			&number{&o.workers, 1, 1024}},
		{"", "spare", "N", "1",
			"number of idle workers for sessions of other users; with " +
				"--isolation=session as many for tlsd's own user",
			&number{&o.spare, 0, 1024}},
		{"", "libssl", "PATH", "libssl.so.4, .so.3, .so.1.1, then the platform's names",
			"the OpenSSL library", (*text)(&o.libssl)},

		{"", "confine", "MODE", "auto",
			"auto: confine workers as far as the kernel can; require: fully, or do " +
				"not start; off: not at all",
			&choice{&o.confine, []string{"auto", "require", "off"}}},
		{"", "require-openssl", "MODE",
			"no: without OpenSSL, calls that need it fail",
			"yes: do not start without a usable OpenSSL",
			&choice{&o.requireOpenSSL, []string{"no", "yes"}}},
		{"", "readable", "PATH,…", "all that their users may read",
			"files and folders that workers may read, besides the system's; not " +
				"possible with --confine=off; may be repeated",
			&paths{&o.readable}},
		{"", "failed-handshakes", "MODE", "raise",
			"raise: a client's failed handshake fails the Accept; skip: Accept " +
				"goes on, and the log has the failure",
			&choice{&o.failedHandshakes, []string{"raise", "skip"}}},
		{"", "reload-certificates", "MODE", "off",
			"auto: if a certificate's files change on disk, later handshakes of " +
				"servers use the new files",
			&choice{&o.reloadCertificates, []string{"off", "auto"}}},

		{"Times", "connect-timeout", "TIME", "30s",
			"how long a NewClient may take: the look-up of the name and the attempts " +
				"at all its addresses together",
			&duration{&o.timeouts.Connect, false}},
		{"", "handshake-timeout", "TIME", "30s",
			"how long a Handshake may take", &duration{&o.timeouts.Handshake, false}},
		{"", "accept-handshake-timeout", "TIME", "10s",
			"how long the handshake of one client of Accept may take",
			&duration{&o.timeouts.AcceptHandshake, false}},
		{"", "accept-timeout", "TIME", "0, never",
			"how long an Accept may take; after a timeout the context still listens",
			&duration{&o.timeouts.Accept, true}},
		{"", "read-timeout", "TIME", "0, never",
			"how long a Read may wait for data", &duration{&o.timeouts.Read, true}},
		{"", "write-timeout", "TIME", "30s",
			"how long the sending of each 64 KiB of a Write may take",
			&duration{&o.timeouts.Write, false}},
		{"", "close-timeout", "TIME", "1s",
			"how long written data may take to reach the peer, after a Close or the " +
				"session's end",
			&duration{&o.timeouts.Close, false}},
		{"", "answer-timeout", "TIME", "30s",
			"how long a caller may take to read one answer; then tlsd ends its session",
			&duration{&o.answerTimeout, false}},
		{"", "session-idle-timeout", "TIME", "12h",
			"end a session after this time without a call in flight, a message or " +
				"data; 0: never",
			&duration{&o.idleTimeout, true}},
		{"", "drain-timeout", "TIME", "30s",
			"how long open sessions may go on when tlsd stops; then tlsd ends them",
			&duration{&o.drainTimeout, true}},
		{"", "watchdog", "TIME", "10s",
			"how long a worker with sessions may be silent, or an OpenSSL call may " +
				"take; then tlsd kills the worker; 0: never",
			&duration{&o.watchdog, true}},
		{"", "idle-exit", "TIME", "0, never",
			"exit after this time without a session", &duration{&o.idleExit, true}},

		{"Limits", "max-sessions", "N", "1000",
			"sessions at the same time", &number{&o.maxSessions, 1, 1 << 20}},
		{"", "max-sessions-per-uid", "N",
			"all; with --allow-uid or --allow-gid: a quarter of all",
			"sessions of one user at the same time",
			&number{&o.maxSessionsPerUID, 1, 1 << 20}},
		{"", "max-handles", "N", "65536",
			"open handles of one session", &number{&o.limits.Handles, 1, 1 << 30}},
		{"", "max-calls", "N", "4096",
			"calls of one session in flight", &number{&o.limits.Calls, 1, 1 << 20}},
		{"", "max-pending", "N", "128",
			"clients that no Accept has claimed yet, for each address on which a " +
				"server context listens",
			&number{&o.limits.Pending, 1, 1 << 16}},
		{"", "max-message", "SIZE", "23MiB",
			"bytes of one message",
			&size{&o.messages.Message, 1 << 10, 1 << 30, false}},
		{"", "max-nesting", "N", "64",
			"levels of arrays and objects in a message",
			&number{&o.messages.Nesting, 4, 10000}},
		{"", "max-buffered", "SIZE", "64MiB",
			"data that one session's waiting calls keep in memory",
			&size{&o.messages.Buffered, 1 << 10, 1 << 40, false}},
		{"", "max-memory", "SIZE", "0, none",
			"memory that one worker may use in addition to its memory at the start",
			&size{&o.maxMemory, 64 << 20, 1 << 50, true}},

		{"Log and service", "log-level", "LEVEL", "info",
			"log entries of this level and above: debug, info, warn, error",
			&choice{&o.logLevel, []string{"debug", "info", "warn", "error"}}},
		{"", "log-format", "FORMAT",
			"auto: console on a terminal, journal under systemd, else json",
			"form of the log; journal: systemd's, with priorities and fields",
			&choice{&o.logFormat, []string{"auto", "console", "json", "journal"}}},
		{"", "audit-log", "FILE", "none: audit lines are in the log",
			"append audit lines to this file, not to the log; opened again on SIGHUP",
			(*text)(&o.auditLog)},
		{"", "key-log", "FILE", "none",
			"append the secrets of all connections to this file, so that captured " +
				"traffic can be decrypted; for debugging only",
			(*text)(&o.keyLog)},
		{"", "ready-fd", "N", "none",
			"when tlsd listens, it writes a newline to this descriptor, and closes it",
			&number{&o.readyFD, 1, 1 << 20}},

		{"Other", "config", "FILE",
			"/etc/tlsd/tlsd.toml for root, if it is there; else none",
			"the configuration file: TOML with the names of these flags as keys; " +
				"none: read no file",
			(*text)(&o.config)},
		{"", "check", "", "",
			"check the settings, the sockets, the logs, OpenSSL and the policy, " +
				"print each user's policy, and exit",
			(*boolean)(&o.check)},
		{"", "print-config", "", "",
			"print each setting and its source, and exit",
			(*boolean)(&o.printConfig)},
		{"", "version", "", "",
			"print the version and exit", (*boolean)(&o.version)},
		{"", "help", "", "",
			"print this text and exit", (*boolean)(&o.help)},
	}
}
