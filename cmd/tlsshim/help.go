package main

import (
	_ "embed"
	"fmt"
	"io"
	"strings"
)

// The manual is the package comment of main.go.
//
//go:embed main.go
var mainGo string

// manual returns the package comment as text.
func manual() string {
	comment, _, _ := strings.Cut(mainGo, "\npackage main\n")
	var b strings.Builder
	for line := range strings.Lines(comment + "\n") {
		line = strings.TrimPrefix(strings.TrimPrefix(line, "//"), " ")
		if heading, ok := strings.CutPrefix(line, "# "); ok {
			line = strings.ToUpper(heading)
		}
		b.WriteString(strings.Replace(line, "\t", "    ", 1))
	}
	return b.String()
}

func printHelp(w io.Writer) error {
	_, err := io.WriteString(w, manual())
	return err
}

// printSubHelp prints the help of one subcommand.
func printSubHelp(w io.Writer, name string) error {
	var b strings.Builder
	for _, sub := range subcommands {
		if sub.name == name {
			words := strings.TrimSpace(name + " [FLAG…] " + sub.args)
			fmt.Fprintf(&b, "usage: tlsshim [FLAG…] %s\n\n%s\n", words, subHelp[name])
		}
	}
	if name == "call" || name == "shell" {
		b.WriteString("\nMethods:\n")
		for i := range methods {
			fmt.Fprintf(&b, "  %-52s %s\n", methods[i].usage(), methods[i].about)
		}
	}
	flags := "--socket PATH, --timeout TIME, --json"
	if administers(name) {
		flags = "--admin-socket PATH, --timeout TIME, --json"
	}
	b.WriteString("\nFlags: " + flags + ". The whole manual: tlsshim --help\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// administers says whether the subcommand talks to the admin socket.
func administers(name string) bool {
	for _, sub := range subcommands {
		if sub.name == name {
			return sub.flags != nil
		}
	}
	return false
}

var subHelp = map[string]string{
	"call": `Makes calls in one session, one after another, up to the first failure. Results go to
standard output, one a line. Read writes its bytes unchanged. The data of Write is TEXT, @FILE,
- (standard input) or base64:TEXT. text:TEXT is TEXT itself, even if TEXT looks like one of these.

  tlsshim call NewClient example.com 443 -- Handshake 1 -- PeerCertSubject 1

Exit status: 0 ok; 1 a call failed; 2 wrong usage; 3 no tlsd answers; 130 interrupted.`,

	"shell": `Makes the calls of each line of standard input, all in one session. A line is
written like the words after "tlsshim call". 'Single quotes' keep every character. "Double quotes"
and $'…' have the escapes \n \r \t \0 \e \\ \" \' and \xNN. Lines that start with # are
skipped. After a failed call, the rest of the call's line is skipped.

Exit status: 0 ok; 1 a call failed; 2 a line had an error; 3 no tlsd answers; 130 interrupted.`,

	"status": `Prints one line: which tlsd answers, where, and with which library.

Exit status: 0 a tlsd runs; 3 none does.`,

	"doctor": `Examines the sockets, the daemon, its library and trust store, and the
environment. As a test, a server and a client talk to each other through the daemon, on 127.0.0.1.
Each finding is ok, warn or fail. After a warn or a fail, the next line says how to mend it.

Exit status: 0 calls will work, perhaps with warnings; 1 they will not.`,

	"sessions": `Lists the sessions: number, user, pid of the script's process, its program, age,
open handles, bytes from and to peers, the call in flight, and up to 2 peers. If the script's
process has ended, the pid may belong to another process by now.
With --watch it repeats the list every 2 seconds until SIGINT.
With --json each list is one line, with at most 2 connections and 2 contexts of each session.

Exit status: 0 ok; 1 it failed; 2 wrong usage; 3 no tlsd answers; 130 interrupted.`,

	"session": `Shows a session and at most 64 of its open handles: the kind (client, server or context), the
state of a connection (making, open, handshake, ready or broken), its bytes from and to the peer,
and the peer's address. For a context it shows the address on which the context listens.

Exit status: 0 ok; 1 there is no such session; 2 wrong usage; 3 no tlsd answers.`,

	"end": `Ends a session, and returns when the session is gone. The script's calls fail with an error of
kind "lost" that has the reason. The script may open its next session at once.
If the worker does not obey within 5s, tlsd kills the worker. But if the worker can have other
sessions (--isolation=shared), tlsd only shuts down this script's socket to tlsd.

Exit status: 0 ok; 1 the session has not ended; 2 wrong usage; 3 no tlsd answers.`,

	"log-level": `Prints or changes the log level of tlsd and its workers: debug, info, warn or error. A change
lasts until SIGHUP or the end of tlsd. Audit lines are written at every level.

Exit status: 0 ok; 1 it failed; 2 wrong usage; 3 no tlsd answers.`,

	"drain": `Makes tlsd do the same as on SIGTERM: stop listening, let sessions finish within --drain-timeout,
and exit. The subcommand does not wait for the end.

Exit status: 0 ok; 1 it failed; 2 wrong usage; 3 no tlsd answers.`,

	"health": `Says whether tlsd is healthy, with its version, library, sessions and workers. Each problem has a
line of its own. The subcommand starts no worker and writes no line to tlsd's log.

Exit status: 0 healthy; 1 not healthy, or tlsd is stopping; 2 wrong usage; 3 no tlsd answers; 4 tlsd
refuses to report its health, for example because its admin socket has too many clients.`,

	"metrics": `Prints tlsd's metrics in Prometheus' text format, or with --json as JSON. Counters begin at 0 when
tlsd starts, and keep their values when workers end.

Exit status: 0 ok; 1 it failed; 2 wrong usage; 3 no tlsd answers.`,

	"exporter": `Serves the output of "metrics" to Prometheus: GET /metrics at ADDRESS, such as 127.0.0.1:9911. It
asks tlsd at each request, and runs until SIGINT or SIGTERM. While tlsd does not answer, the
exporter serves only tlsd_up 0, and standard error has the reason. A client that reaches the address
can read the metrics.

Exit status: 0 SIGTERM has stopped it; 1 it cannot listen; 2 wrong usage; 130 interrupted.`,
}
