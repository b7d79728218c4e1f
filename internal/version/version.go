// Package version has the version of this source tree, for --version and tls.Hello.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version follows semantic versioning; CHANGELOG.md has the changes. A packager may set it:
// -ldflags "-X tlsd/internal/version.Version=0.1.0-3".
var Version = "0.1.0"

// In a build from the Git folder, the go command records the commit in the program. For a build
// without the Git folder, a packager sets this variable (make COMMIT=…). If it is set, the go
// command's record is not used.
var commit string

// Commit is the commit that this program is built from, or "" if it is not known. "+changes"
// follows if the source had changes that were not committed.
func Commit() string {
	if commit != "" {
		return commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return fromSettings(info.Settings)
}

func fromSettings(settings []debug.BuildSetting) string {
	var revision, changes string
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			changes = "+changes"
		}
	}
	if revision == "" {
		return ""
	}
	return revision[:min(len(revision), 12)] + changes
}

// Line is what a program prints for --version.
func Line(program string) string {
	built := fmt.Sprintf("%s %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if c := Commit(); c != "" {
		built += ", commit " + c
	}
	return fmt.Sprintf("%s %s (%s)", program, Version, built)
}
