// Package testcc compiles C sources for tests and for the programs that run tests.
package testcc

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
)

// Strict returns the flags with which each C source of the project must compile. A warning is an
// error.
func Strict() []string {
	return []string{"-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g"}
}

// Compile makes a file from C sources, with the flags of Strict, which the Makefile has too. The
// argument compiler is a program in PATH, such as "cc". The argument flags has further flags. They
// come after the sources, so that libraries can be among them. The error has the compiler's output.
func Compile(ctx context.Context, compiler, file string, sources []string, flags ...string) error {
	args := slices.Concat(Strict(), []string{"-o", file}, sources, flags)
	if out, err := exec.CommandContext(ctx, compiler, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s: %w\n%s", file, err, out)
	}
	return nil
}
