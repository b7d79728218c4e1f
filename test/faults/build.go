package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tlsd/internal/testcc"
)

// errNoLibrary says that the machine has no libssl to link with.
var errNoLibrary = errors.New(
	"neither libssl.so.4, libssl.so.3 nor libssl.so.1.1 can be linked with")

// releases are the suffixes of libssl's file name, in the order in which package openssl tries
// them.
var releases = []struct {
	suffix string
	major  int
}{{"4", 4}, {"3", 3}, {"1.1", 1}}

// build makes faultssl's library, in file, and returns the functions that the library wraps.
func build(file string) ([]function, error) {
	root, err := sourceTree()
	if err != nil {
		return nil, err
	}
	abi, err := os.ReadFile(filepath.Join(root, "openssl/testdata/abi.c"))
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "faultssl-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for _, r := range releases {
		functions, err := parsePrototypes(string(abi), r.major)
		if err != nil {
			return nil, fmt.Errorf("openssl/testdata/abi.c: %w", err)
		}
		linked, err := compile(file, dir, filepath.Join(root, "test/faults/src"),
			r.suffix, functions)
		if err != nil {
			return nil, err
		}
		if linked {
			return functions, nil
		}
	}
	return nil, errNoLibrary
}

// compile makes the library on top of one release. It returns false if the machine lacks that
// release.
func compile(file, dir, src, release string, functions []function) (linked bool, err error) {
	generated, versions := filepath.Join(dir, "wrappers.c"), filepath.Join(dir, "versions")
	if err := os.WriteFile(generated, []byte(wrappers(functions)), 0o600); err != nil {
		return false, err
	}
	if err := os.WriteFile(versions, []byte(versionScript(functions)), 0o600); err != nil {
		return false, err
	}
	err = testcc.Compile(context.Background(), "cc", file,
		[]string{filepath.Join(src, "faultssl.c"), generated}, "-O1", "-fPIC", "-shared",
		"-fno-strict-aliasing", "-I", src, "-Wl,--version-script="+versions,
		"-Wl,--no-as-needed", "-l:libssl.so."+release, "-l:libcrypto.so."+release, "-ldl",
		"-pthread")
	if err != nil && strings.Contains(err.Error(), "cannot find -l:libssl.so."+release) {
		return false, nil
	}
	return err == nil, err
}

// sourceTree finds the top of the source tree from the working directory upwards.
func sourceTree() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "openssl/testdata/abi.c")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("not in the source tree of tlsd: there is no " +
				"openssl/testdata/abi.c here or above")
		}
		dir = up
	}
}
