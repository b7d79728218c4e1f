# shellcheck shell=sh
# enter.sh ROOT SOURCES TESTS DIR COMMAND ARGUMENT... - run a test program in a root.
#
# unshare(1) runs this script with mount, pid and network namespaces of its own, so that all mounts
# end with the program. SOURCES is mounted at /src, read-only. DIR is the working directory, below
# /src. The programs of the folder TESTS are copied to /tmp/bin, because tests make hard links to
# them in other folders of /tmp. The machine's file system is mounted at /host, for programs that
# need more than a root has. It is read-only, but /host/tmp is /tmp. The variable OPENSSL is the
# version of the root, and LEVEL is the value for TLSD_TEST_LEVEL.
set -eu
root=$1 sources=$2 tests=$3 dir=$4
shift 4
# The root must be a mount point, so that a test in it can call mount --make-rprivate /.
mount --bind "$root" "$root"
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
mount -o remount,bind,ro "$root/host" # only the top mount; nothing writes to the mounts below it
mount --bind "$root/tmp" "$root/host/tmp"
# testssl.sh waits for an answer with the help of ps(1). With the machine's own /proc, ps does not
# find the processes of this namespace.
mount -t proc proc "$root/host/proc"
mkdir "$root/tmp/bin"
cp "$tests"/* "$root/tmp/bin"
chmod 755 "$root/tmp/bin" "$root/tmp/bin"/*
ip link set lo up
exec env -i PATH=/usr/bin:/bin TMPDIR=/tmp HOME=/tmp LC_ALL=C TLSD_TEST_BIN=/tmp/bin TLSD_TEST_OPENSSL="$OPENSSL" \
	TLSD_TEST_LEVEL="${LEVEL:-}" TLSD_TEST_HOST=/host \
	unshare --root="$root" --wd="/src/$dir" "$@"
