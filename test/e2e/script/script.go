// Package script has commands for scripts of package testscript which more than one room uses.
package script

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

// A Command is a command of a script. neg is true if it stands behind an exclamation mark.
type Command = func(ts *testscript.TestScript, neg bool, args []string)

// Need ends the script unless a command has least to most arguments, and no exclamation mark.
func Need(ts *testscript.TestScript, neg bool, args []string, least, most int) {
	if neg || len(args) < least || len(args) > most {
		ts.Fatalf("wrong usage")
	}
}

// Run is the command "run STATUS [ARG …]": it runs a program, which must end with this status. It
// is like exec otherwise.
func Run(program string) Command {
	name := filepath.Base(program)
	return func(ts *testscript.TestScript, neg bool, args []string) {
		Need(ts, neg, args, 1, 100)
		status := 0
		if err := ts.Exec(program, args[1:]...); err != nil {
			var exit *exec.ExitError
			if !errors.As(err, &exit) {
				ts.Fatalf("%s: %v", name, err)
			}
			status = exit.ExitCode()
		}
		if strconv.Itoa(status) != args[0] {
			ts.Fatalf("%s ends with %d; want %s", name, status, args[0])
		}
	}
}
