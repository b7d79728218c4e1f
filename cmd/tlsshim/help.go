package main

import (
	_ "embed"
	"fmt"
	"io"
	"strings"
)

// The manual is written once: it is the package comment of main.go.
//
//go:embed main.go
var mainGo string

// manual is the package comment as text.
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

// printSubHelp prints what is particular to one subcommand.
func printSubHelp(w io.Writer, name string) error {
	var b strings.Builder
	for _, sub := range subcommands {
		if sub.name == name {
			fmt.Fprintf(&b, "usage: %s\n\n%s\n", strings.TrimSpace("tlsshim [FLAG…] "+name+" [FLAG…] "+sub.args), subHelp[name])
		}
	}
	if name == "call" || name == "shell" {
		b.WriteString("\nMethods:\n")
		for i := range methods {
			fmt.Fprintf(&b, "  %-52s %s\n", methods[i].usage(), methods[i].about)
		}
	}
	b.WriteString("\nFlags: --socket PATH, --timeout TIME, --json. The whole manual: tlsshim --help\n")
	_, err := io.WriteString(w, b.String())
	return err
}

var subHelp = map[string]string{
	"call": `Makes calls in one session, one after another, up to the first that fails. Results go to
standard output, one a line; Read writes the bytes as they are. The data of Write is text,
@FILE, - (standard input), base64:TEXT or text:TEXT.

  tlsshim call NewClient example.com 443 -- Handshake 1 -- PeerCertSubject 1

Exit status: 0; 1 a call failed; 2 wrong usage; 3 no tlsd answers; 130 interrupted.`,

	"shell": `Makes the calls of each line of standard input, all in one session. A line is what follows
"tlsshim call"; 'single quotes' keep everything, "double quotes" and $'…' know \n \r \t \xNN. Lines
that start with # are skipped. A call that fails ends its line only.

Exit status: 0; 1 a call failed; 2 a line was not understood; 3 no tlsd answers; 130 interrupted.`,

	"status": `Prints one line: which tlsd answers, where, and with which library.

Exit status: 0 a tlsd runs; 3 none does.`,

	"doctor": `Examines the sockets, the daemon, its library and its trust store, and the environment. A server
and a client of its own speak with each other through the daemon, on 127.0.0.1. Each finding is
ok, warn or fail, and each problem says how to mend it.

Exit status: 0 calls will work, perhaps with warnings; 1 they will not.`,
}
