#!/bin/sh
# check.sh quick|all - look for mistakes in the sources without running them.
#
# quick: formatting and go vet. all: also
#   - for Go: go vet for darwin and freebsd, and staticcheck, errcheck, unparam and deadcode, which
#     are built from tools/go.mod;
#   - for C: gcc's analyzer, cppcheck, and a check that the plugin uses only POSIX;
#   - shellcheck and codespell.
#
# A check prints its findings. If there are any, the exit status is 1.
#
# shellcheck disable=SC2317 # the function check calls functions, by their names
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

# The packages of which tlsd and tlsshim are made. errcheck and unparam look only at these, because
# packages for tests may ignore errors.
# shellcheck disable=SC2016
product=$("$GO" list -deps \
	-f '{{if .Module}}{{if .Module.Main}}{{.ImportPath}}{{end}}{{end}}' ./cmd/...)

# deadcode prints the functions that neither a program nor a test reaches. Its exit status is always
# 0, so any output is a finding.
reachable() {
	dead=$("$tools/deadcode" -tags scan -test ./...) || return
	[ -z "$dead" ] || {
		echo "$dead"
		return 1
	}
}

# The ignored words are names, or wrong spellings that a test needs.
spelt() {
	words=fro,hel,fo,gost,inflight,atleast,atmost,defualt,numbr,tru,nulll
	git ls-files |
		grep -Ev '(^|/)(testdata|corpus|charts|results\.json|go\.sum|.*\.[1-8]$|.*\.svg$)' |
		xargs codespell --ignore-words-list="$words"
}

analyzed() {
	bad=0
	for source in cmd/tlsshim/plugin/*.c test/plugin/domhost/src/*.c internal/testhost/src/*.c; do
		# If a list keeps memory or a descriptor, the analyzer wrongly reports a leak. The
		# sanitizers look for leaks instead.
		gcc -std=c11 -O1 -Wall -Wextra -Werror -fanalyzer \
			-Wno-analyzer-malloc-leak -Wno-analyzer-fd-leak -Icmd/tlsshim/plugin -c -o /dev/null "$source" || bad=1
	done
	return "$bad"
}

# The product's folders must compile for darwin and freebsd, with their tests. For freebsd without
# cgo, purego's README demands that the compiler gets the flag -std for its package fakecgo.
foreign() {
	bad=0
	for os in darwin freebsd; do
		GOOS=$os "$GO" vet -gcflags=github.com/ebitengine/purego/internal/fakecgo=-std \
			./cmd/... ./internal/... ./openssl/... ./rpc/... ./session/... || bad=1
	done
	return "$bad"
}

# The plugin uses POSIX alone, except in system.c. gcc reports most names that are not in POSIX. But
# the C library's headers always declare some names of Linux, and gcc does not report these. So grep
# looks for them.
portable() {
	bad=0
	for source in cmd/tlsshim/plugin/*.c; do
		[ "${source##*/}" != system.c ] || continue
		gcc -std=c11 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wpedantic -Werror \
			-fsyntax-only "$source" || bad=1
		! grep -nHE -e '__linux__|_GNU_SOURCE|SOCK_(CLOEXEC|NONBLOCK)|MSG_DONTWAIT' \
			-e 'SO_PEERCRED|SIGRTMAX|<sys/(prctl|syscall|eventfd|epoll)\.h>' \
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
