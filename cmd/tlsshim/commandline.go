package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"tlsd/internal/version"
)

// This file reads the command line.

// checkSocketFlag refuses --socket for a subcommand that uses the admin socket, and --admin-socket
// for the others.
func (c *command) checkSocketFlag(sub subcommand) error {
	switch {
	case sub.flags != nil && c.socket != "":
		return misuse("%s: --socket has no effect here; use --admin-socket", sub.name)
	case sub.flags == nil && c.adminSocket != "":
		return misuse("%s: --admin-socket has no effect here; use --socket", sub.name)
	}
	return nil
}

// subFlags reads the words after the name of a subcommand. The result help says whether --help is
// among the words. The result rest has the arguments. It is nil after --version, and with an error.
// If the subcommand has flags of its own, flags may also stand between and after the arguments.
func (c *command) subFlags(sub subcommand, args []string) (rest []string, help bool, err error) {
	if sub.flags == nil {
		return c.flags(args)
	}
	rest = []string{}
	for {
		after, helpToo, err := c.flags(args, sub.flags...)
		if help = help || helpToo; err != nil || after == nil {
			return nil, help, err
		}
		if len(after) == 0 {
			return rest, help, nil
		}
		rest, args = append(rest, after[0]), after[1:]
	}
}

// takesFlagsOnly says whether the subcommand takes no arguments besides flags.
func (sub subcommand) takesFlagsOnly() bool {
	return sub.args == "" || strings.HasPrefix(sub.args, "--") ||
		strings.HasPrefix(sub.args, "[--")
}

// flags reads the flags at the beginning of args. It knows the flags that every subcommand takes,
// and those in the list own. The result rest has the words after the flags. It is nil after
// --version, and with an error.
func (c *command) flags(args []string, own ...string) (rest []string, help bool, err error) {
	set := flag.NewFlagSet("tlsshim", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	showVersion := false
	set.StringVar(&c.socket, "socket", c.socket, "")
	set.DurationVar(&c.timeout, "timeout", c.timeout, "")
	set.BoolVar(&c.json, "json", c.json, "")
	set.BoolVar(&showVersion, "version", false, "")
	set.BoolVar(&help, "help", false, "")
	set.BoolVar(&help, "h", false, "")
	for _, name := range own {
		switch name {
		case "admin-socket":
			set.StringVar(&c.adminSocket, name, c.adminSocket, "")
		case "watch":
			set.BoolVar(&c.watch, name, c.watch, "")
		case "reason":
			set.StringVar(&c.reason, name, c.reason, "")
		case "listen":
			set.StringVar(&c.listen, name, c.listen, "")
		}
	}
	if err := set.Parse(args); err != nil {
		return nil, false, usageError{flagError(err)}
	}
	given := map[string]bool{}
	set.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if given["timeout"] && c.timeout <= 0 {
		return nil, false, misuse("--timeout: want a time above 0, such as 5s or 1m30s")
	}
	if given["admin-socket"] && c.adminSocket == "" {
		return nil, false, misuse("--admin-socket: want a path")
	}
	if given["socket"] && c.socket == "" {
		return nil, false, misuse("--socket: want a path")
	}
	if showVersion {
		_, err := fmt.Fprintln(c.stdout, version.Line("tlsshim"))
		return nil, false, err
	}
	return append([]string{}, set.Args()...), help, nil
}

// flagError rewrites an error of package flag in our spelling.
func flagError(err error) error {
	s := err.Error()
	for _, r := range [][2]string{
		{"flag provided but not defined: -", "unknown flag --"},
		{"flag needs an argument: -", "a value is missing after --"},
		{" for flag -", " for --"},
		{" for -", " for --"},
		{": parse error", ": want a time such as 5s or 1m30s"},
	} {
		s = strings.Replace(s, r[0], r[1], 1)
	}
	return errors.New(strings.Replace(s, "---", "--", 1))
}
