// Package domhost builds domhost, the stand-in for the DominScript interpreter. The program itself
// is C, in src. README.md says which parts of the language it has.
package domhost

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"

	"tlsd/internal/testcc"
)

// Build compiles domhost with the C compiler cc, and writes the program to the file exe. It uses
// the same warnings as make, and then cflags, such as -fsanitize=address. An error contains the
// compiler's output.
func Build(exe string, cflags ...string) error {
	sources, err := filepath.Glob(filepath.Join(folder(), "src", "*.c"))
	if err != nil || len(sources) == 0 {
		return fmt.Errorf("build domhost: no sources in %s", filepath.Join(folder(), "src"))
	}
	return testcc.Compile(context.Background(), "cc", exe, sources, append(cflags, "-ldl")...)
}

// folder returns the folder of this source file, which exists because tests run in the source tree.
func folder() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(file)
}
