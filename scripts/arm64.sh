#!/bin/sh
# arm64.sh - build tlsd and the plugin for linux/arm64, and run a part of the suites there, under qemu.
#
# A small root is made of Debian's packages for arm64: its libssl, libc and openssl. They come from the mirror that
# this machine's apt uses, with lists and state of their own; nothing is installed into the system. The tests
# run in a user namespace with a binfmt_misc of its own (Linux 6.7), so that the machine's own is left alone.
# qemu-aarch64-static is registered in it with the flags P, because workers are told by argv[0], and F, because the
# root has no qemu.
#
# qemu has neither Landlock nor seccomp, so the confinement of workers is not tested. It has no TCP_INFO
# of the machine either: the tests that need it are left out. So are those that start many workers at once: a worker
# that is emulated on a busy machine needs longer than the 10 s that tlsd gives it.
#
# Environment:
#   TLSD_ARM64_CACHE    folder of the root; default $XDG_CACHE_HOME/tlsd/arm64. A root younger than a day is used as it is.
#   TLSD_DEBIAN_MIRROR  URL of a Debian mirror; default: the first of apt's sources
#
# The exit status is 1 if a test has failed, and 3, after a line that says why, if nothing could be run.
set -eu
cd "$(dirname "$0")/.."

cache=${TLSD_ARM64_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tlsd/arm64}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
release=bookworm openssl=3.0
root=$cache/root
qemu=$(command -v qemu-aarch64-static || :)

skip() {
	echo "arm64: SKIPPED: $*" >&2
	exit 3
}

# In the namespaces: registers qemu, and goes on as the matrix does.
if [ "${1:-}" = --enter ]; then
	shift
	mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
	printf '%s' ':qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:'"$qemu:PF" \
		>/proc/sys/fs/binfmt_misc/register
	[ $# -gt 0 ] || exit 0
	exec sh test/run/matrix/enter.sh "$@"
fi

# within runs this script's --enter in namespaces that end with it.
within() {
	timeout --foreground -k 5 600 unshare --user --map-root-user --mount --pid --net --fork --kill-child sh scripts/arm64.sh --enter "$@"
}

mirror() {
	if [ -n "${TLSD_DEBIAN_MIRROR:-}" ]; then
		echo "$TLSD_DEBIAN_MIRROR"
		return
	fi
	for f in /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ -e "$f" ] || continue
		sed -n -e 's/^URIs:[[:space:]]*\([^[:space:]]*\).*/\1/p' \
			-e 's/^deb[[:space:]]\{1,\}\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]*\).*/\2/p' "$f"
	done | grep -m 1 '/debian/*$' || echo http://deb.debian.org/debian
}

# populate makes the root anew.
populate() {
	apt=$cache/apt new=$cache/new
	rm -rf "$new" "$apt/archives"
	mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$new/usr/bin" "$new/usr/sbin" "$new/usr/lib"
	echo "deb [arch=arm64 signed-by=$keyring] $(mirror) $release main" >"$apt/sources.list"
	# Packages that dpkg would configure depend on debconf. Nothing is configured here.
	printf 'Package: debconf\nStatus: install ok installed\nVersion: 99\nArchitecture: all\nMaintainer: nobody\nDescription: left out\n' >"$apt/status"
	{
		cat <<-END
			APT::Architecture "arm64";
			APT::Architectures { "arm64"; };
			Dir::State "$apt";
			Dir::State::status "$apt/status";
			Dir::Cache "$apt";
			Dir::Cache::pkgcache "";
			Dir::Cache::srcpkgcache "";
			Dir::Etc::main "/dev/null";
			Dir::Etc::parts "/dev/null";
			Dir::Etc::sourcelist "$apt/sources.list";
			Dir::Etc::sourceparts "/dev/null";
			Dir::Etc::preferences "/dev/null";
			Dir::Etc::preferencesparts "/dev/null";
			Dir::Etc::trustedparts "/dev/null";
			Acquire::Languages "none";
			Acquire::GzipIndexes "true";
			Acquire::Retries "3";
			Acquire::http::Timeout "30";
			APT::Update::Error-Mode "any";
			APT::Install-Recommends "false";
			APT::Get::AllowUnauthenticated "false";
		END
		# As root apt fetches as another user, who cannot write to a private folder.
		[ "$(id -u)" != 0 ] || echo 'APT::Sandbox::User "root";'
		apt-config dump | grep -iE '^Acquire::(https?::Proxy|Check-Valid-Until|Check-Date)' || :
	} >"$apt/apt.conf"
	APT_CONFIG=$apt/apt.conf apt-get -qq update &&
		APT_CONFIG=$apt/apt.conf apt-get -qq -y --download-only install libssl3 openssl ca-certificates dash libc6-dev || return
	for d in bin sbin lib; do
		ln -s "usr/$d" "$new/$d"
	done
	for deb in "$apt"/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -C "$new" -x --keep-directory-symlink --no-same-owner \
			--exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale --exclude=./usr/lib/*/gconv || return
	done
	mkdir -p "$new/proc" "$new/dev" "$new/tmp" "$new/run" "$new/src" "$new/host" "$new/etc/ssl/certs" "$new/var/lib"
	echo '127.0.0.1 localhost' >"$new/etc/hosts"
	printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$new/etc/passwd"
	printf 'root:x:0:\nnogroup:x:65534:\n' >"$new/etc/group"
	cat "$new"/usr/share/ca-certificates/mozilla/*.crt >"$new/etc/ssl/certs/ca-certificates.crt" || return
	rm -rf "$apt/archives" "$root"
	mv "$new" "$root"
	touch "$cache/complete"
}

for tool in apt-get apt-config dpkg-deb flock unshare timeout ip aarch64-linux-gnu-gcc qemu-aarch64-static; do
	command -v "$tool" >/dev/null || missing="${missing:-} $tool"
done
[ -e "$keyring" ] || missing="${missing:-} $keyring"
[ -z "${missing:-}" ] || skip "this machine lacks:$missing"
within 2>/dev/null || skip 'no user namespace with a binfmt_misc of its own could be made (Linux 6.7)'

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ -z "$(find "$cache/complete" -mtime -1 -newer scripts/arm64.sh 2>/dev/null)" ]; then
	rm -f "$cache/complete"
	# set -e does not hold in a condition, so the function returns by itself.
	populate >"$cache/log" 2>&1 || skip "no root was made: $(grep -m 1 '^E:' "$cache/log" || tail -n 1 "$cache/log")"
fi

built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
for program in tlsd tlsshim; do
	CGO_ENABLED=0 GOARCH=arm64 go build -trimpath -o "$built/$program" "./cmd/$program"
done
for package in openssl test/conformance; do
	CGO_ENABLED=0 GOARCH=arm64 go test -c -o "$built/$(echo "$package" | tr / -).test" "./$package"
done
compile() { aarch64-linux-gnu-gcc -std=c11 -Wall -Wextra -Werror -O2 "$@"; }
compile -fPIC -shared -fvisibility=hidden -Wl,-z,defs -o "$built/TlsPlugin.so" cmd/tlsshim/plugin/*.c -pthread
compile -o "$built/domhost" test/plugin/domhost/src/*.c -ldl -lm
compile -Icmd/tlsshim/plugin -o "$built/host" internal/testhost/src/*.c -ldl -pthread

status=0
# suite NAME LEVEL FOLDER TESTS - runs the tests of a program in the root, and counts them.
suite() {
	program=/tmp/bin/$(echo "$3" | tr / -).test
	if LEVEL=$2 OPENSSL=$openssl within "$root" "$PWD" "$built" "$3" "$program" -test.v -test.run "$4" >"$built/log" 2>&1 &&
		grep -q '^ *--- PASS' "$built/log"; then
		echo "arm64: $1: $(grep -c '^ *--- PASS' "$built/log") passed, $(grep -c '^ *--- SKIP' "$built/log") skipped"
	else
		status=1
		cat "$built/log"
		echo "arm64: $1: FAILED" >&2
	fi
}

suite openssl '' openssl \
	'^Test(Load|HandshakeTells|HandshakeErrors|ReadGives|ReadSome|CloseWriteEndsOnly|AlertAfter|CancelledRead|ConcurrentWrites|WriteToAGone|EveryWriteAfter|CABundles)'
calls='^Test(EachLevel|RequestAndReply|TheCaBundle|PeerCertSubject|ACutConnection|WeGetThePage|SClientVerifies)'
for level in 'in process' daemon plugin; do
	suite "$level" "$level" test/conformance "$calls"
done
exit "$status"
