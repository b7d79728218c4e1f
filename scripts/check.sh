#!/bin/sh
# check.sh quick|all - look for mistakes in the sources without running them.
#
# quick: formatting and go vet. all: also go vet for darwin and freebsd, staticcheck, errcheck, unparam and
# deadcode (built from tools/go.mod), gcc's analyzer, whether the plugin keeps to POSIX, cppcheck, shellcheck
# and codespell. Each check that finds
# something prints it, and the status is 1 at the end.
#
# shellcheck disable=SC2317 # functions are called by their names
set -u
cd "$(dirname "$0")/.." || exit
GO=${GO:-go}
export CGO_ENABLED=0
status=0

# check NAME COMMAND... - runs a check and notes whether it has failed.
check() {
	name=$1
	shift
	"$@" || {
		echo "check: $name failed" >&2
		status=1
	}
}

formatted() {
	unformatted=$(gofmt -l bench cmd docs internal openssl packaging rpc session test)
	[ -z "$unformatted" ] || {
		echo "not formatted by gofmt: $unformatted"
		return 1
	}
}

check gofmt formatted
check 'go vet' "$GO" vet -tags scan ./...
[ "${1:-}" = all ] || exit "$status"

tools=$PWD/bin/tools
(cd tools && GOBIN=$tools "$GO" install tool) || exit 1

# The packages of which tlsd and tlsshim are made; what only tests use may ignore errors.
# shellcheck disable=SC2016
product=$("$GO" list -deps -f '{{if .Module}}{{if .Module.Main}}{{.ImportPath}}{{end}}{{end}}' ./cmd/...)

# deadcode prints what no program and no test reaches, and has no status for it.
reachable() {
	dead=$("$tools/deadcode" -tags scan -test ./...) || return
	[ -z "$dead" ] || {
		echo "$dead"
		return 1
	}
}

# The words that are left out are names, or slips that a test makes on purpose.
spelt() {
	git ls-files | grep -Ev '(^|/)(testdata|corpus|charts|results\.json|go\.sum|.*\.[1-8]$|.*\.svg$)' |
		xargs codespell --ignore-words-list=fro,hel,fo,gost,inflight,atleast,atmost,defualt,numbr,tru,nulll
}

analyzed() {
	bad=0
	for source in cmd/tlsshim/plugin/*.c test/plugin/domhost/src/*.c internal/testhost/src/*.c; do
		# What a list or a caller keeps is taken for lost, so leaks are left to the sanitizers.
		gcc -std=c11 -O1 -Wall -Wextra -Werror -fanalyzer -Wno-analyzer-malloc-leak -Wno-analyzer-fd-leak \
			-Icmd/tlsshim/plugin -c -o /dev/null "$source" || bad=1
	done
	return "$bad"
}

# All but test/ has to compile for these systems, its tests included. purego wants the flag for freebsd without cgo.
foreign() {
	bad=0
	for os in darwin freebsd; do
		GOOS=$os "$GO" vet -gcflags=github.com/ebitengine/purego/internal/fakecgo=-std \
			./cmd/... ./internal/... ./openssl/... ./rpc/... ./session/... || bad=1
	done
	return "$bad"
}

# The plugin uses POSIX alone, but for system.c. The C library's headers show some names of Linux to everybody.
portable() {
	bad=0
	for source in cmd/tlsshim/plugin/*.c; do
		[ "${source##*/}" != system.c ] || continue
		gcc -std=c11 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wpedantic -Werror -fsyntax-only "$source" || bad=1
		! grep -nHE '__linux__|_GNU_SOURCE|SOCK_(CLOEXEC|NONBLOCK)|MSG_DONTWAIT|SO_PEERCRED|SIGRTMAX|<sys/(prctl|syscall|eventfd|epoll)\.h>' \
			"$source" || bad=1
	done
	return "$bad"
}

shells() { git ls-files '*.sh' .ci/run | xargs shellcheck --severity=warning; }

check 'go vet for darwin and freebsd' foreign
check staticcheck "$tools/staticcheck" -tags scan ./...
# shellcheck disable=SC2086
check errcheck "$tools/errcheck" -ignoretests -exclude tools/errcheck.txt $product
# shellcheck disable=SC2086
check unparam "$tools/unparam" -tests=false $product
check deadcode reachable
check 'gcc -fanalyzer' analyzed
check 'POSIX in the plugin' portable
check cppcheck cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr \
	--suppressions-list=tools/cppcheck.txt --error-exitcode=1 -j2 \
	cmd/tlsshim/plugin test/plugin/domhost/src internal/testhost/src
check shellcheck shells
check codespell spelt
exit "$status"
