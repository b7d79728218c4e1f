package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// This file reads the settings: from the flags, the environment and the configuration file.

// sessionsPerUID is --max-sessions-per-uid, or its default. If other users may connect, the default
// is a quarter of all sessions. So one user cannot take all of them.
func (o *options) sessionsPerUID() int {
	switch {
	case o.maxSessionsPerUID > 0:
		return o.maxSessionsPerUID
	case len(o.allowUID)+len(o.allowGID) > 0:
		return (o.maxSessions + 3) / 4
	}
	return o.maxSessions
}

// envName is the environment variable of a flag: that of --socket-mode is TLSD_SOCKET_MODE.
func envName(name string) string {
	return "TLSD_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// hasVariable says whether an environment variable can set the flag.
func (f flagInfo) hasVariable() bool { return f.arg != "" }

// parseOptions reads the settings. The flags win over the environment, the environment over the
// configuration file, and the file over the defaults. The parameter config is the default of
// --config. With --help or --version, only the flags are read.
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
				return nil, fmt.Errorf("invalid value %q of the environment "+
					"variable %s: %w", v, envName(f.name), err)
			}
			o.origin[f.name] = envName(f.name)
		}
	}
	if o.config == "" {
		o.config = config
	}
	if o.config != none {
		if err := useConfig(&o, table); err != nil {
			return nil, err
		}
	}
	return &o, o.finish()
}

// parseFlags reads the command line, and sets o.origin.
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

// useConfig reads the configuration file, and applies the settings that neither a flag nor a
// variable has set.
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
			return fmt.Errorf("configuration file: %s: invalid value %q of %s: %w",
				at, v.text, f.name, err)
		}
		o.origin[f.name] = at
	}
	return nil
}

// finish checks settings against each other, and sets those that depend on others.
func (o *options) finish() error {
	if len(o.readable) > 0 && o.confine == "off" {
		return errors.New("--readable needs --confine=auto or require: otherwise workers " +
			"may read all that their users may")
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

// flagError rewrites an error of package flag in our spelling.
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

// socketPath is the path of the socket.
func (o *options) socketPath() (string, error) {
	if o.socket != "" {
		return o.socket, nil
	}
	return defaultSocket(os.Geteuid(), os.Getenv)
}

// defaultSocket is the default of --socket.
func defaultSocket(uid int, getenv func(string) string) (string, error) {
	if uid == 0 {
		return "/run/tlsd.sock", nil
	}
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		return strings.TrimRight(dir, "/") + "/tlsd.sock", nil
	}
	return "", errors.New("where to listen: neither --socket nor TLSD_SOCKET nor " +
		"XDG_RUNTIME_DIR is set; give --socket PATH")
}
