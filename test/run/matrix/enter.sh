# shellcheck shell=sh
# enter.sh ROOT SOURCES TESTS DIR COMMAND ARGUMENT... - run a test program in a root.
#
# unshare(1) runs it with mount, pid and network namespaces of its own, so that all of this ends
# with the program. SOURCES is at /src, read-only, and DIR is the working directory below it. The
# programs of TESTS are in /tmp/bin, on the file system of the tests' own files. The machine's file
# system is at /host, read-only except for that /tmp. It is for programs that need more than a root
# has. OPENSSL is the version of the root, and LEVEL the value for TLSD_TEST_LEVEL.
set -eu
root=$1 sources=$2 tests=$3 dir=$4
shift 4
mount --bind "$root" "$root" # so that a test can make what is mounted below it private
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for d in null zero random urandom; do
	: >"$root/dev/$d"
	mount --bind "/dev/$d" "$root/dev/$d"
done
mount --bind "$sources" "$root/src"
mount -o remount,bind,ro "$root/src"
mkdir -p "$root/host"
mount --rbind / "$root/host"
mount -o remount,bind,ro "$root/host" # of the root; nothing is written to the others
mount --bind "$root/tmp" "$root/host/tmp"
# The machine's own proc does not know the processes of this namespace. There ps(1) fails, by which
# testssl.sh waits for an answer.
mount -t proc proc "$root/host/proc"
mkdir "$root/tmp/bin"
cp "$tests"/* "$root/tmp/bin"
chmod 755 "$root/tmp/bin" "$root/tmp/bin"/*
ip link set lo up
exec env -i PATH=/usr/bin:/bin TMPDIR=/tmp HOME=/tmp LC_ALL=C TLSD_TEST_BIN=/tmp/bin TLSD_TEST_OPENSSL="$OPENSSL" \
	TLSD_TEST_LEVEL="${LEVEL:-}" TLSD_TEST_HOST=/host \
	unshare --root="$root" --wd="/src/$dir" "$@"
