package main

import (
	"fmt"
	"slices"
	"strings"
)

// otherVariables are variables that begin with TLSD_ and have no effect on tlsd. The plugin, the Go
// client, or scripts of this source tree read them. So they are no error in tlsd's environment.
var otherVariables = []string{
	"TLSD_AUTOSTART", "TLSD_EXE", "TLSD_LOG", "TLSD_STRICT_WRITES",
	"TLSD_DEBIAN_MIRROR", "TLSD_KERNEL_CACHE", "TLSD_KERNEL_ONLY", "TLSD_KERNEL_RUN",
	"TLSD_KERNEL_TIME", "TLSD_LIBSSL_CACHE", "TLSD_LIBSSL_ONLY", "TLSD_POSTGRESQL_CACHE",
}

// testVariables is the prefix of the variables for tests.
const testVariables = "TLSD_TEST_"

// readEnvironment returns the values of the settings' variables, by the settings' names. An empty
// variable counts as not set. An unknown variable that begins with TLSD_ is an error, because it
// may be a misspelt setting.
func readEnvironment(environ []string, table []flagInfo) (map[string]string, error) {
	settings := map[string]string{}
	for _, f := range table {
		if f.hasVariable() {
			settings[envName(f.name)] = f.name
		}
	}
	values := map[string]string{}
	for _, entry := range environ {
		variable, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(variable, "TLSD_") || value == "" {
			continue
		}
		name, ok := settings[variable]
		switch {
		case ok:
			values[name] = value
		case strings.HasPrefix(variable, testVariables) ||
			slices.Contains(otherVariables, variable):
		default:
			known := append(variables(table), otherVariables...)
			return nil, fmt.Errorf("the environment variable %s is not known; "+
				"correct or unset it%s", variable, suggest(variable, known))
		}
	}
	return values, nil
}

// variables lists the names of the settings' variables.
func variables(table []flagInfo) []string {
	var names []string
	for _, f := range table {
		if f.hasVariable() {
			names = append(names, envName(f.name))
		}
	}
	return names
}

// suggest is the end of an error about an unknown name. It names the nearest known name, if one is
// near enough.
func suggest(name string, known []string) string {
	best, least := "", len(name)/3+1
	for _, k := range known {
		if d := distance(name, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// distance is the number of letters to insert, delete or replace to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
