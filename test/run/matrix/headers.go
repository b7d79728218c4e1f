package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
)

// The suite "headers" compiles abi.c with the headers of a version of OpenSSL. abi.c is the table
// of C types and values that package openssl relies on.

// headers is the name of the suite.
const headers = "headers"

// abi has a line for each symbol and constant of OpenSSL that package openssl uses.
const abi = "openssl/testdata/abi.c"

var (
	abiLine  = regexp.MustCompile(`(?m)^(?:FUNCTION\([^(]*?(\w+), \(|CONSTANT\((\w+),)`)
	abiCheck = regexp.MustCompile(`ABI_CHECK "(\w+)"`)
	// matches a line of abi.c that the compiler quotes in a message
	badCheck = regexp.MustCompile(`(?m)^ *\d+ \| ((?:FUNCTION|CONSTANT)\(.*)$`)
)

// headers checks the table. A symbol or constant passes if it is as the table says. It is skipped
// if the table's own conditions say that this version does not have it.
func (m *matrix) headers(v version) result {
	text, err := os.ReadFile(filepath.Join(m.source, abi))
	if err != nil {
		m.say("%v", err)
		return result{failed: 1}
	}
	multiarch, err := filepath.Glob(filepath.Join(v.dir, "dev/usr/include/*-linux-gnu*"))
	if err != nil || len(multiarch) != 1 {
		m.say("%s: no headers in %s", v.name, v.dir)
		return result{failed: 1}
	}
	flags := []string{"-std=c11", "-Wall", "-Werror", "-isystem",
		filepath.Join(v.dir, "dev/usr/include"),
		"-isystem", multiarch[0], filepath.Join(m.source, abi)}
	r, said := checkHeaders(m.ctx, string(text), flags)
	if said != "" {
		m.say("%s: %s does not agree with the headers:\n%s", v.name, abi, said)
	}
	m.say("%s, headers: %s", v.name, r)
	return r
}

// checkHeaders compiles the table. The flags name the table and the headers.
func checkHeaders(ctx context.Context, text string, flags []string) (r result, said string) {
	all := map[string]bool{}
	for _, line := range abiLine.FindAllStringSubmatch(text, -1) {
		all[line[1]+line[2]] = true
	}
	// The preprocessor leaves out the lines of the table that are only for other versions.
	list, err := exec.CommandContext(ctx, "cc",
		append([]string{"-E", "-DLIST_ONLY"}, flags...)...).CombinedOutput()
	if err != nil {
		return result{failed: 1}, string(list)
	}
	here := map[string]bool{}
	for _, found := range abiCheck.FindAllStringSubmatch(string(list), -1) {
		here[found[1]] = true
	}
	for name := range here {
		delete(all, name)
	}
	r = result{passed: len(here), skipped: len(all)}
	if len(here) == 0 {
		return result{failed: 1}, "the table has no check for this version"
	}
	out, err := exec.CommandContext(ctx, "cc",
		append([]string{"-fsyntax-only"}, flags...)...).CombinedOutput()
	if err != nil {
		bad := map[string]bool{}
		for _, line := range badCheck.FindAllStringSubmatch(string(out), -1) {
			bad[line[1]] = true
		}
		r.failed = max(1, len(bad))
		r.passed = max(0, r.passed-r.failed)
		said = string(out)
	}
	return r, said
}
