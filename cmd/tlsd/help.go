package main

import (
	"fmt"
	"io"
	"strings"
)

// printHelp writes the help. The text about the flags comes from their table.
func printHelp(w io.Writer) {
	var o options
	fmt.Fprint(w, `tlsd serves TLS to local programs: JSON-RPC over a Unix socket in front, OpenSSL behind.

Usage: tlsd [flags]

  tlsd --socket /tmp/tlsd.sock                    start tlsd
  echo '{"jsonrpc":"2.0","id":1,"method":"tls.Backend"}' |
      socat - UNIX-CONNECT:/tmp/tlsd.sock         ask it something
`)
	for _, f := range flagTable(&o) {
		if f.heading != "" {
			fmt.Fprintf(w, "\n%s\n", f.heading)
		}
		fmt.Fprintf(w, "  %s\n", strings.TrimSpace("--"+f.name+" "+f.arg))
		fmt.Fprintf(w, "      %s\n", f.text)
		if f.hasVariable() {
			fmt.Fprintf(w, "      default: %s; environment: %s\n", f.preset,
				envName(f.name))
		}
	}
	fmt.Fprint(w, `
A flag wins over its environment variable, and both win over the configuration file (--config).
The keys of the file are the flags' names: max-sessions = 500. Times are like 90s, 1m30s or 500ms.

SIGHUP: read the configuration file (only log-level and policy) and the file of --policy again.
SIGTERM or SIGINT: stop listening, let sessions finish, exit; a second signal ends them at once.
Exit status: 0 after a stop, also if --drain-timeout ended sessions; 1 if tlsd could not start, if a
second signal ended sessions, or if --check has found a fault; 2 for wrong usage or a bad setting.
`)
}
