// Package version has the version of this source tree, for --version and tls.Hello.
package version

// Version follows semantic versioning; CHANGELOG.md says what changed.
const Version = "0.1.0"
