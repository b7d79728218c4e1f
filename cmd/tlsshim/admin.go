package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"tlsd/internal/admin"
	"tlsd/rpc/wire"
)

// This file has the subcommands for the administrator, except for the exporter. Each of them makes
// one request to the admin socket. (With --watch, "sessions" repeats its request.) None of them
// opens a session.

// adminTime is the default timeout of an answer. The slowest subcommand is "end", because tlsd
// answers only after the session has ended.
const adminTime = 30 * time.Second

// watchEvery is the pause between two lists of "tlsshim sessions --watch".
const watchEvery = 2 * time.Second

// noAdminError: no usable answer has come from the admin socket.
type noAdminError struct {
	path string
	why  error
}

func (e *noAdminError) Error() string {
	return fmt.Sprintf("no tlsd answers at its admin socket %s: %v", e.path, e.why)
}

func (e *noAdminError) Unwrap() error { return e.why }

// report prints the error, and what the user can do about it.
func (e *noAdminError) report(w io.Writer) {
	fmt.Fprintf(w, "tlsshim: %s\n      to mend it: start tlsd with --admin-socket=PATH, "+
		"and run tlsshim with the same flag, as root or as tlsd's own user\n",
		clean(e.Error()))
}

// refusedError: the daemon refuses to report its health.
type refusedError struct{ error }

// adminPath is the path of the admin socket.
func (c *command) adminPath() string {
	return cmp.Or(c.adminSocket, c.getenv("TLSD_ADMIN_SOCKET"), admin.DefaultSocket)
}

// request makes a request to the daemon, and decodes the daemon's answer into *result.
func (c *command) request(ctx context.Context, method string, params, result any) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.timeout, adminTime))
	defer cancel()
	path := c.adminPath()
	err := admin.Ask(ctx, path, method, params, result)
	switch refused := (*wire.Error)(nil); {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return errors.New(clean(refused.Message))
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("no answer within %v (--timeout)",
			cmp.Or(c.timeout, adminTime))
	}
	return &noAdminError{path, err}
}

// sessionNumber reads an argument that is the number of a session.
func sessionNumber(args []string, usage string) (uint64, error) {
	if len(args) != 1 {
		return 0, misuse("want %s; run tlsshim sessions for the numbers of sessions", usage)
	}
	n, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil || n == 0 {
		return 0, misuse("%q is not the number of a session; run tlsshim sessions for the "+
			"numbers", args[0])
	}
	return n, nil
}

func (c *command) sessions(ctx context.Context, _ []string) error {
	for {
		var list []admin.Session
		if err := c.request(ctx, admin.MethodSessions, nil, &list); err != nil {
			return err
		}
		if err := c.showSessions(list); err != nil || !c.watch {
			return err
		}
		select {
		case <-time.After(watchEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// showSessions prints the list: as a table, or as a line of JSON.
func (c *command) showSessions(list []admin.Session) error {
	if c.json {
		return c.line(list)
	}
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join([]string{"SESSION", "USER", "PID", "PROGRAM", "AGE", "HANDLES",
		"IN", "OUT", "WAITS", "PEERS"}, "\t"))
	for _, s := range list {
		handles, in, out, peers := "?", "?", "?", "its worker does not answer"
		if s.Known {
			handles = strconv.Itoa(s.Connections + s.Contexts)
			in, out, peers = amount(s.Received), amount(s.Sent), peersOf(s)
		}
		fmt.Fprintf(t, "%d\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Number,
			userName(s.UID), s.PID, cmp.Or(s.Program, "-"), age(s.Age),
			handles, in, out, cmp.Or(s.Waits, "its script"), cmp.Or(peers, "-"))
	}
	_ = t.Flush() // cannot fail: it writes into memory
	if c.watch {
		fmt.Fprintln(&b)
	}
	return c.write([]byte(cleanLines(b.String())))
}

// peersOf names the first peers of a session, and adds the number of further connections.
func peersOf(s admin.Session) string {
	const some = 2
	var names []string
	for _, h := range s.Handles {
		if h.Kind != "context" && h.Peer != "" {
			names = append(names, h.Peer)
		}
	}
	text := strings.Join(names[:min(len(names), some)], " ")
	if more := s.Connections - some; len(names) >= some && more > 0 {
		text += fmt.Sprintf(" +%d", more)
	}
	return text
}

func (c *command) session(ctx context.Context, args []string) error {
	n, err := sessionNumber(args, "session N")
	if err != nil {
		return err
	}
	var s admin.Session
	if err := c.request(ctx, admin.MethodSession, admin.SessionParams{Number: n},
		&s); err != nil {
		return err
	}
	if c.json {
		return c.line(s)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "session %d of user %s, process %d (%s), served by worker %d for %s\n",
		s.Number, userName(s.UID), s.PID,
		cmp.Or(s.Program, "gone"), s.Worker, age(s.Age))
	fmt.Fprintf(&b, "it waits for %s\n", cmp.Or(s.Waits, "its script"))
	if !s.Known {
		fmt.Fprintln(&b, "its worker does not answer, so no more is known")
		return c.write([]byte(cleanLines(b.String())))
	}
	fmt.Fprintf(&b, "%d connections, %d server contexts, %d calls in flight, %s in, %s out\n",
		s.Connections, s.Contexts, s.Calls,
		amount(s.Received), amount(s.Sent))
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if len(s.Handles) > 0 {
		fmt.Fprintln(t, "HANDLE\tKIND\tSTATE\tIN\tOUT\tPEER")
	}
	for _, h := range s.Handles {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\n", h.Handle, h.Kind, cmp.Or(h.State, "-"),
			amount(h.Received), amount(h.Sent), cmp.Or(h.Peer, "-"))
	}
	_ = t.Flush() // cannot fail: it writes into memory
	if more := s.Connections + s.Contexts - len(s.Handles); more > 0 {
		fmt.Fprintf(&b, "and %d more handles\n", more)
	}
	return c.write([]byte(cleanLines(b.String())))
}

func (c *command) end(ctx context.Context, args []string) error {
	n, err := sessionNumber(args, "end N --reason TEXT")
	if err != nil {
		return err
	}
	if c.reason == "" || len(c.reason) > admin.MaxReason {
		return misuse("end: want --reason TEXT with 1 to %d bytes; the script gets TEXT "+
			"in an error",
			admin.MaxReason)
	}
	var ended admin.Ended
	if err := c.request(ctx, admin.MethodEnd, admin.EndParams{Number: n, Reason: c.reason},
		&ended); err != nil {
		return err
	}
	if c.json {
		return c.line(ended)
	}
	return c.write(fmt.Appendf(nil, "session %d has ended\n", ended.Number))
}

func (c *command) logLevel(ctx context.Context, args []string) error {
	if len(args) > 1 {
		return misuse("log-level: one argument too many, %q; want [LEVEL]", args[1])
	}
	var p admin.LogLevelParams
	if len(args) == 1 {
		if p.Level = args[0]; p.Level == "" {
			return misuse("log-level: the level is empty")
		}
	}
	var level admin.LogLevel
	if err := c.request(ctx, admin.MethodLogLevel, p, &level); err != nil {
		return err
	}
	if c.json {
		return c.line(level)
	}
	return c.write([]byte(clean(level.Level) + "\n"))
}

func (c *command) drain(ctx context.Context, _ []string) error {
	var d admin.Draining
	if err := c.request(ctx, admin.MethodDrain, nil, &d); err != nil {
		return err
	}
	if c.json {
		return c.line(d)
	}
	return c.write(fmt.Appendf(nil, "tlsd is stopping; it waits for %d sessions\n", d.Sessions))
}

// health carries out the subcommand health. If tlsd is not healthy, the error is errReported.
func (c *command) health(ctx context.Context, _ []string) error {
	var h admin.Health
	err := c.request(ctx, admin.MethodHealth, nil, &h)
	if none := (*noAdminError)(nil); err != nil && !errors.As(err, &none) {
		return refusedError{err}
	}
	if err != nil {
		return err
	}
	if c.json {
		err = c.line(h)
	} else {
		var b strings.Builder
		for _, p := range h.Problems {
			fmt.Fprintf(&b, "problem: %s\n", clean(p))
		}
		word := "healthy"
		if !h.Healthy {
			word = "not healthy"
		}
		fmt.Fprintf(&b, "%s: tlsd %s, %s, up %s, %d of %d sessions, workers:", word,
			clean(h.Version), clean(cmp.Or(h.Library, "no library yet")),
			age(h.Uptime), h.Sessions, h.MaxSessions)
		for _, state := range slices.Sorted(maps.Keys(h.Workers)) {
			fmt.Fprintf(&b, " %d %s", h.Workers[state], clean(state))
		}
		err = c.write([]byte(b.String() + "\n"))
	}
	if err == nil && !h.Healthy {
		err = errReported
	}
	return err
}

func (c *command) metrics(ctx context.Context, _ []string) error {
	var families []admin.Family
	if err := c.request(ctx, admin.MethodMetrics, nil, &families); err != nil {
		return err
	}
	if c.json {
		return c.line(families)
	}
	return c.write(exposition(families))
}
