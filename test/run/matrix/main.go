// Matrix runs the conformance suites against several versions of OpenSSL. scripts/libssl-matrix.sh
// makes the roots and calls it:
//
//	go run ./test/run/matrix [-v] 3.0=/folder/of/3.0 "3.6=-sid has another version"
//
// The folder of a version has two folders: root is a small system with that version, and dev has
// the headers. A text after "-" says why there is no folder. Each suite of each version runs in the
// root, with namespaces of its own. To make namespaces, the command needs the user root, or a
// system that allows user namespaces. The programs are built on this machine: the Go programs once,
// the C programs for the libc of each root.
//
// # Promises
//
//   - The last lines are a table: versions × suites, with passed, failed and skipped. Subtests
//     count. Before the table each suite says why tests were skipped, and prints its lines "in
//     figures".
//   - The exit status is 1 if a test has failed, or a suite has ended without its tests. It is 3 if
//     nothing was run. A version without a root, or with a root that cannot be entered, is reported
//     as skipped, never as passed.
//   - Each suite checks that the library under test has the version that the suite is for.
//   - Every test program of a suite is limited by suiteTime and leaves no process behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// suiteTime ends a test program that hangs. The longest suite takes 2 min on a quiet machine, and
// 4 min on a busy one.
const suiteTime = 20 * time.Minute

// A version is one row of the matrix.
type version struct {
	name string // "3.0"
	dir  string // its folder, an absolute path; empty if there is none
	why  string // why there is no folder
}

func parseVersions(args []string) ([]version, error) {
	var all []version
	for _, arg := range args {
		name, dir, ok := strings.Cut(arg, "=")
		if !ok || name == "" || dir == "" || dir == "-" {
			return nil, fmt.Errorf("%q is not VERSION=FOLDER or VERSION=-REASON", arg)
		}
		if why, missing := strings.CutPrefix(dir, "-"); missing {
			all = append(all, version{name: name, why: why})
		} else {
			all = append(all, version{name: name, dir: dir})
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no versions: there is nothing to test")
	}
	return all, nil
}

func main() {
	verbose := flag.Bool("v", false, "print what every test prints, not only those that fail")
	only := flag.String("suite", "", "run only the suite of this name")
	flag.Parse()
	versions, err := parseVersions(flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
		os.Exit(2)
	}
	for _, v := range versions {
		if v.dir == "" {
			continue
		}
		// scripts/libssl-matrix.sh takes the same lock before it replaces roots. So no root
		// is replaced before this process ends.
		lock, err := os.Open(filepath.Join(filepath.Dir(v.dir), "lock"))
		if err == nil {
			err = syscall.Flock(int(lock.Fd()), syscall.LOCK_SH)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			fmt.Fprintln(os.Stderr, "matrix:", err)
			os.Exit(1)
		}
		defer lock.Close()
		break // one lock is enough: the folders of all versions lie beside each other
	}
	// Ctrl-C ends the suite that runs, and its namespaces.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	m := &matrix{ctx: ctx, out: os.Stdout, verbose: *verbose, only: *only}
	if err := m.run(versions); err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
		if errors.Is(err, errNothing) {
			os.Exit(3)
		}
		os.Exit(1)
	}
}
