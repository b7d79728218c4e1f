// Tlsshim talks to the daemon tlsd from a shell. It makes calls. If calls do not work, it finds out
// why.
//
//	tlsshim call METHOD [ARG…] [-- METHOD [ARG…]]…    make calls in one session
//	tlsshim shell                                     read calls from standard input, one a line
//	tlsshim status                                    say whether a tlsd runs, and which
//	tlsshim doctor                                    examine everything that calls depend on
//
// For the administrator: root, or the daemon's own user (see Administration):
//
//	tlsshim sessions [--watch]                        list the sessions
//	tlsshim session N                                 show a session and its handles
//	tlsshim end N --reason TEXT                       end a session, and tell its script why
//	tlsshim log-level [LEVEL]                         print or change tlsd's log level
//	tlsshim drain                                     stop tlsd when its sessions have ended
//	tlsshim health                                    say whether tlsd is healthy
//	tlsshim metrics                                   print tlsd's metrics in Prometheus' format
//	tlsshim exporter --listen ADDRESS                 serve the metrics to Prometheus by HTTP
//
// Each subcommand takes --help. These flags may stand before or after the subcommand:
//
//	--socket PATH   the daemon's socket. Without this flag: $TLSD_SOCKET, else the socket of
//	                /etc/tlsd/client.conf, else the first of these sockets that answers:
//	                $XDG_RUNTIME_DIR/tlsd.sock, /run/tlsd.sock, /run/tlsd/tlsd.sock, and
//	                /tmp/tlsd-UID/tlsd.sock (if there is no runtime directory)
//	--timeout TIME  the timeout of connecting, and of each call, such as 5s or 1m30s.
//	                Without it: tlsd's own timeouts for call and shell, 5s for status,
//	                doctor and exporter, and 30s for all other subcommands
//	--json          results for programs
//	--admin-socket PATH
//	                the daemon's admin socket. Without it: $TLSD_ADMIN_SOCKET, else
//	                /run/tlsd/admin.sock
//	--version       print the version and exit
//
// Tlsshim never starts a daemon.
//
// # Calls
//
//	tlsshim call NewClient example.com 443 -- Handshake 1 \
//	    -- Write 1 $'GET / HTTP/1.0\r\nHost: example.com\r\n\r\n' -- Read 1 4096
//
// makes four calls in one session, one after another, and ends at the first failure. A METHOD is
// a method tls.*, where "tls." may be left out, or rpc.discover. "tlsshim call --help" lists the
// methods and their parameters. Handles count from 1 in each session, so the first NewClient makes
// handle 1. When tlsshim ends, its session ends, and tlsd closes the open handles.
//
// The paths of files may be relative to the working directory. The data of Write and WritePlain has
// at most 16 MiB (16777216 bytes), and is one of
//
//	TEXT          the text itself
//	@FILE         the content of the file
//	-             standard input up to its end; in call only, and once
//	base64:TEXT   the bytes that TEXT encodes
//	text:TEXT     TEXT itself, even if it looks like one of the above
//
// Tlsshim reads all data before the first call.
//
// Results go to standard output, one a line: a number, a string (control characters as \xNN), or
// the JSON of Info and rpc.discover. Read writes its bytes unchanged, and adds no line feed. Errors
// go to standard error.
//
// With --json each call prints one line, also a call that fails. Blobs are base64:
//
//	{"method":"tls.Version","result":"OpenSSL 3.0.19 27 Jan 2026"}
//	{"method":"tls.Close","error":{"code":-32001,"message":"…","data":{"kind":"handle",…}}}
//
// SIGINT cancels the call in flight, also in tlsd.
//
// # Shell
//
// A line is written like the words after "tlsshim call", quoted as in a shell. 'Single quotes' keep
// every character. "Double quotes" and $'…' have the escapes \n \r \t \0 \e \\ \" \' and \xNN.
// Empty lines and lines that start with # are skipped. All lines share one session. After a failed
// call, tlsshim goes on with the next line. When the session is lost, tlsshim ends.
//
// # Administration
//
// These subcommands talk to the daemon's admin socket (tlsd --admin-socket), which serves root and
// the daemon's own user. They start no worker. Each use of end, of drain, and of log-level with
// a LEVEL writes an audit line. The other subcommands write no line to tlsd's log.
//
// After an administrator has ended a session, the session's user may open another one at once. With
// --isolation=shared the worker's other sessions go on.
//
// The exporter serves GET /metrics at ADDRESS, such as 127.0.0.1:9911, until SIGINT or SIGTERM. It
// asks tlsd at each request. If tlsd does not answer, the exporter serves tlsd_up 0.
//
// # Exit status
//
//	0    all calls succeeded; status: a tlsd runs; doctor: calls will work; health: tlsd is
//	     healthy
//	1    a call failed; doctor: calls will not work; health: tlsd is not healthy
//	2    wrong usage; nothing was called (shell: a line was not understood)
//	3    no tlsd answers; standard error lists the sockets that were tried
//	4    health: tlsd refuses to report its health, for example because its admin socket has
//	     too many clients
//	130  interrupted
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"tlsd/rpc/client"
)

const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNoDaemon    = 3
	exitRefused     = 4   // health: tlsd refuses to report its health
	exitInterrupted = 130 // the status that a shell gives a command that SIGINT has ended
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT)
	context.AfterFunc(ctx, stop) // a second signal ends tlsshim at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, client.Getenv))
}

// command is one run of the program.
type command struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string

	socket  string
	timeout time.Duration
	json    bool

	adminSocket string
	watch       bool
	reason      string
	listen      string
}

// subcommands in the order of the help.
var subcommands = []subcommand{
	{"call", "METHOD [ARG…] [-- METHOD [ARG…]]…", "make calls in one session", (*command).call,
		nil},
	{"shell", "", "read calls from standard input, one a line", (*command).shell, nil},
	{"status", "", "say whether a tlsd runs, and which", (*command).status, nil},
	{"doctor", "", "examine everything that calls depend on", (*command).doctor, nil},

	{"sessions", "[--watch]", "list the sessions", (*command).sessions,
		[]string{"admin-socket", "watch"}},
	{"session", "N", "show a session and its handles", (*command).session,
		[]string{"admin-socket"}},
	{"end", "N --reason TEXT", "end a session, and tell its script why", (*command).end,
		[]string{"admin-socket", "reason"}},
	{"log-level", "[LEVEL]", "print or change tlsd's log level", (*command).logLevel,
		[]string{"admin-socket"}},
	{"drain", "", "stop tlsd when its sessions have ended", (*command).drain,
		[]string{"admin-socket"}},
	{"health", "", "say whether tlsd is healthy", (*command).health, []string{"admin-socket"}},
	{"metrics", "", "print tlsd's metrics in Prometheus' format", (*command).metrics,
		[]string{"admin-socket"}},
	{"exporter", "--listen ADDRESS", "serve the metrics to Prometheus by HTTP",
		(*command).exporter, []string{"admin-socket", "listen"}},
}

type subcommand struct {
	name, args, about string
	run               func(*command, context.Context, []string) error
	// flags has the names of the flags that this subcommand takes besides the common flags. If
	// it is nil, all flags must stand before the arguments.
	flags []string
}

// subcommandNames lists the subcommands.
func subcommandNames() string {
	var list []string
	for _, sub := range subcommands {
		list = append(list, sub.name)
	}
	last := len(list) - 1
	return strings.Join(list[:last], ", ") + " or " + list[last]
}

// errReported is the error of a run whose failure has been printed already.
var errReported = errors.New("the failure has been printed")

type usageError struct{ error }

func misuse(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run is the program, and returns the exit status. When ctx is done, it stops as on SIGINT.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer,
	getenv func(string) string) int {
	c := &command{stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv}
	err := c.run(ctx, args)
	var none *client.NoDaemonError
	var noAdmin *noAdminError
	switch {
	case err == nil || errors.Is(err, errReported):
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "tlsshim: interrupted")
	case errors.As(err, new(usageError)):
		fmt.Fprintf(stderr, "tlsshim: %v\nRun tlsshim --help for the manual.\n", err)
		return exitUsage
	case errors.As(err, &none):
		reportNoDaemon(stderr, none)
		return exitNoDaemon
	case errors.As(err, &noAdmin):
		noAdmin.report(stderr)
		return exitNoDaemon
	case errors.As(err, new(refusedError)):
		fmt.Fprintln(stderr, "tlsshim:", err)
		return exitRefused
	default:
		fmt.Fprintln(stderr, "tlsshim:", err)
	}
	switch {
	case ctx.Err() != nil:
		return exitInterrupted
	case err != nil:
		return exitFailed
	}
	return exitOK
}

func (c *command) run(ctx context.Context, args []string) error {
	args, help, err := c.flags(args, "admin-socket")
	if err != nil || args == nil {
		return err
	}
	if help && len(args) == 0 {
		return printHelp(c.stdout)
	}
	if len(args) == 0 {
		return misuse("a subcommand is missing: want %s", subcommandNames())
	}
	for _, sub := range subcommands {
		if sub.name != args[0] {
			continue
		}
		rest, helpToo, err := c.subFlags(sub, args[1:])
		switch {
		case err != nil || rest == nil:
			return err
		case help || helpToo:
			return printSubHelp(c.stdout, sub.name)
		case sub.takesFlagsOnly() && len(rest) > 0:
			return misuse("%s: unexpected argument %q: %[1]s takes flags only",
				sub.name, rest[0])
		}
		if err := c.checkSocketFlag(sub); err != nil {
			return err
		}
		return sub.run(c, ctx, rest)
	}
	return misuse("unknown subcommand %q: want %s", args[0], subcommandNames())
}

// sockets() lists the sockets to try. A bad client.conf is an error, as for the plugin.
func (c *command) sockets() ([]string, error) {
	if c.socket != "" {
		return []string{c.socket}, nil
	}
	conf, err := client.ReadConf()
	return client.DefaultSockets(c.getenv, conf), err
}

// connect opens a session with the first daemon that answers.
func (c *command) connect(ctx context.Context) (*client.Client, string, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	sockets, err := c.sockets()
	if err != nil {
		return nil, "", err
	}
	return client.DialFirst(ctx, sockets)
}

// bounded makes the context of one call.
func (c *command) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.timeout)
}
