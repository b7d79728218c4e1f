// Package script has commands for scripts of the package testscript. Several packages use them in
// their tests.
package script

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

// A Command is a command of a script. neg is true if an exclamation mark is before the command.
type Command = func(ts *testscript.TestScript, neg bool, args []string)

// Need ends the script if a command has fewer arguments than least or more than most, or if an
// exclamation mark is before the command.
func Need(ts *testscript.TestScript, neg bool, args []string, least, most int) {
	if neg || len(args) < least || len(args) > most {
		ts.Fatalf(`wrong use of a command: it has %d arguments; want %d to %d, and no "!"`,
			len(args), least, most)
	}
}

// Run returns the command "run STATUS [ARG …]". It works like exec of testscript, but the program
// must end with this status.
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
