package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// A setting is the value in force for one key of the configuration file.
type setting struct {
	name  string
	value string // in the form of the file; "": no value
	from  string // the source of the value; "": the default
	about string // the help's text about the default
}

// settings lists the settings in force, in the order of the help.
func settings(o *options) []setting {
	// flagTable sets the fields of copied to the defaults, and makes flags that point to these
	// fields. So copied gets the values of o after that.
	copied := *o
	table := flagTable(&copied)
	copied = *o
	var list []setting
	for _, f := range table {
		if f.hasKey() {
			list = append(list, setting{f.name, f.tomlValue(), o.origin[f.name],
				f.preset})
		}
	}
	return list
}

// tomlValue is the flag's value in the form of the configuration file; "": no value.
func (f flagInfo) tomlValue() string {
	switch v := f.value.(type) {
	case *number:
		if *v.p < v.min { // a value below the minimum means: not set
			return ""
		}
		return v.String()
	case *size:
		if n := *v.p; n > 0 && n%(1<<20) == 0 {
			return quote(fmt.Sprintf("%dMiB", n>>20))
		}
		return v.String()
	case *duration:
		return quote(shortTime(*v.p))
	case *ids:
		return list(strings.Fields(v.String()))
	case *paths:
		var quoted []string
		for _, path := range *v.p {
			quoted = append(quoted, quote(path))
		}
		return list(quoted)
	}
	if s := f.value.String(); s != "" {
		return quote(s)
	}
	return ""
}

func list(elements []string) string {
	if len(elements) == 0 {
		return ""
	}
	return "[" + strings.Join(elements, ", ") + "]"
}

// quote makes a TOML string of a text.
func quote(s string) string {
	if strconv.Quote(s) == `"`+s+`"` { // nothing to escape
		return `"` + s + `"`
	}
	line, err := toml.Marshal(map[string]string{"k": s})
	if err != nil {
		return fmt.Sprintf("%q", s)
	}
	return strings.TrimSpace(strings.TrimPrefix(string(line), "k = "))
}

// shortTime is a time without zero parts at its end: 12h, not 12h0m0s.
func shortTime(d time.Duration) string {
	text := d.String()
	if short, ok := strings.CutSuffix(text, "m0s"); ok {
		text = short + "m"
	}
	if short, ok := strings.CutSuffix(text, "h0m"); ok {
		text = short + "h"
	}
	return text
}

// printConfig writes the settings in force and the source of each, in the form of a configuration
// file.
func printConfig(w io.Writer, o *options) {
	fmt.Fprintf(w, "# configuration file: %s\n", o.config)
	if path, err := o.socketPath(); err == nil {
		o.socket = path
	}
	for _, s := range settings(o) {
		switch {
		case s.value == "":
			fmt.Fprintf(w, "# %-57s # default: %s\n", s.name+" is not set", s.about)
		case s.from == "":
			fmt.Fprintf(w, "%-59s # default\n", s.name+" = "+s.value)
		default:
			fmt.Fprintf(w, "%-59s # from %s\n", s.name+" = "+s.value, s.from)
		}
	}
}
