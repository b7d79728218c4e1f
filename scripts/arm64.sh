#!/bin/sh
# arm64.sh - build tlsd and the plugin for linux/arm64, and run a part of the suites under qemu.
#
# The tests run in a root: a folder with the file system of a small Debian for arm64 (libssl, libc,
# openssl). debian.sh says where the packages come from. The tests run in a user namespace with a
# binfmt_misc of its own (Linux 6.7), so the machine's binfmt_misc does not change. In the new
# binfmt_misc qemu-aarch64-static is registered with two flags. P keeps argv[0], by which a program
# knows that it is a worker. F opens qemu at registration, because the root has no qemu.
#
# qemu has neither Landlock nor seccomp, so the confinement of workers is not tested. qemu does not
# pass on TCP_INFO, so tests that need it are left out. Tests that start many workers at once are
# left out, too: on a busy machine an emulated worker needs more than the 10 s that tlsd allows for
# its start.
#
# Environment:
#   TLSD_ARM64_CACHE    folder of the root; default $XDG_CACHE_HOME/tlsd/arm64. A root younger than
#                       a day is used as it is.
#   TLSD_DEBIAN_MIRROR  see debian.sh
#
# If a test has failed, the exit status is 1. If nothing could be run, the script says why, and the
# exit status is 3.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=scripts/debian.sh
. scripts/debian.sh

cache=${TLSD_ARM64_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tlsd/arm64}
release=bookworm openssl=3.0
root=$cache/root
qemu=$(command -v qemu-aarch64-static || :)

skip() {
	echo "arm64: SKIPPED: $*" >&2
	exit 3
}

# With --enter, this script runs in the namespaces. It registers qemu, and then executes
# test/run/matrix/enter.sh, which runs a test program in the root. The magic bytes are those of an
# ELF file for arm64, and the mask leaves out the bytes that differ between such files
# (binfmt_misc).
if [ "${1:-}" = --enter ]; then
	shift
	mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
	printf '%s' ':qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:'"$qemu:PF" \
		>/proc/sys/fs/binfmt_misc/register
	[ $# -gt 0 ] || exit 0
	exec sh test/run/matrix/enter.sh "$@"
fi

# within runs this script with --enter in new namespaces. When unshare ends, the namespaces and all
# processes in them end, too.
within() {
	timeout --foreground -k 5 600 \
		unshare --user --map-root-user --mount --pid --net --fork --kill-child \
		sh scripts/arm64.sh --enter "$@"
}

# populate makes the root anew.
populate() {
	rm -rf "$cache/new" "$cache/apt/archives"
	mkdir -p "$cache/new/host"
	debian_architecture=arm64
	debian_apt "$cache/apt" "$release"
	export APT_CONFIG="$cache/apt/apt.conf"
	apt-get -qq update
	apt-get -qq -y --download-only install libssl3 openssl ca-certificates dash libc6-dev
	debian_unpack "$cache/apt" "$cache/new"
	rm -rf "$root"
	mv "$cache/new" "$root"
	touch "$cache/complete"
}

# A shell ignores set -e in a function that is called before ||. So the command before || below does
# not call populate. It runs this script again with --populate. In the new process set -e ends
# populate at the first failure.
if [ "${1:-}" = --populate ]; then
	populate
	exit
fi
missing=$(debian_lacks unshare timeout ip aarch64-linux-gnu-gcc qemu-aarch64-static)
[ -z "$missing" ] || skip "this machine lacks:$missing"
within 2>/dev/null ||
	skip 'no user namespace with a binfmt_misc of its own could be made (Linux 6.7)'

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if ! debian_fresh "$cache/complete" 1 scripts/arm64.sh; then
	rm -f "$cache/complete"
	sh scripts/arm64.sh --populate >"$cache/log" 2>&1 9>&- </dev/null ||
		skip "no root was made: $(debian_reason "$cache/log")"
fi

built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
for program in tlsd tlsshim; do
	CGO_ENABLED=0 GOARCH=arm64 go build -trimpath -o "$built/$program" "./cmd/$program"
done
for package in openssl test/conformance; do
	CGO_ENABLED=0 GOARCH=arm64 \
		go test -c -o "$built/$(echo "$package" | tr / -).test" "./$package"
done
compile() { aarch64-linux-gnu-gcc -std=c11 -Wall -Wextra -Werror -O2 "$@"; }
compile -fPIC -shared -fvisibility=hidden -Wl,-z,defs -o "$built/TlsPlugin.so" \
	cmd/tlsshim/plugin/*.c -pthread
compile -o "$built/domhost" test/plugin/domhost/src/*.c -ldl -lm
compile -Icmd/tlsshim/plugin -o "$built/host" internal/testhost/src/*.c -ldl -pthread

status=0
# suite NAME LEVEL FOLDER TESTS - runs the tests of a program in the root, and counts them.
suite() {
	program=/tmp/bin/$(echo "$3" | tr / -).test
	if LEVEL=$2 OPENSSL=$openssl within "$root" "$PWD" "$built" "$3" "$program" \
		-test.v -test.run "$4" >"$built/log" 2>&1 &&
		grep -q '^ *--- PASS' "$built/log"; then
		passed=$(grep -c '^ *--- PASS' "$built/log")
		echo "arm64: $1: $passed passed, $(grep -c '^ *--- SKIP' "$built/log") skipped"
	else
		status=1
		cat "$built/log"
		echo "arm64: $1: FAILED" >&2
	fi
}

suite openssl '' openssl \
	'^Test(Load|HandshakeTells|HandshakeErrors|ReadGives|ReadSome|CloseWriteEndsOnly|AlertAfter|CancelledRead|ConcurrentWrites|WriteToAGone|EveryWriteAfter|CABundles)'
calls='^Test(EachLevel|RequestAndReply|NewClientsUse|PeerCertSubject|ACutConnection|WeGetThePage|SClientVerifies)'
for level in 'in process' daemon plugin; do
	suite "$level" "$level" test/conformance "$calls"
done
exit "$status"
