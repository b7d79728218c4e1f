// Package version has the version of this source tree, for --version and tls.Hello.
package version

// Version follows semantic versioning; CHANGELOG.md says what changed. A
// packager may set it: -ldflags "-X tlsd/internal/version.Version=0.1.0-3".
var Version = "0.1.0"
