#!/bin/sh
# pristine.sh SUITE [COMMAND...] - run a command in a fresh Debian of this suite (bookworm, trixie),
# which has only Go, gcc, git and apt. The default command is .ci/run.
#
# debootstrap makes the root file system of this Debian once, and the cache folder keeps it. What
# the command writes goes into an overlay, and is removed afterwards. The root file system has a
# clone of HEAD at /src, and this machine's Go, read-only. The command uses the machine's network,
# for apt and Go's modules, and its certificate authorities. The script must run as root.
#
# Environment:
#   TLSD_DEBIAN_MIRROR   URL of a Debian mirror; default: debootstrap's
#
# The exit status is that of the command; 3 if there is no root file system to run it in.
set -eu
cd "$(dirname "$0")/.."

# inside runs in the first process of the namespaces. It enters the root file system, and executes
# the command.
inside() { # root work goroot command...
	new=$2/root
	mount --make-rprivate /
	mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$new"
	mount -t proc proc "$new/proc"
	mount --rbind /sys "$new/sys"
	mount --rbind /dev "$new/dev"
	mkdir -p "$new/usr/local/go"
	mount --bind "$3" "$new/usr/local/go"
	mount -o remount,bind,ro "$new/usr/local/go"
	shift 3
	mkdir "$new/old-root"
	cd "$new"
	pivot_root . old-root
	umount -l /old-root
	rmdir /old-root
	update-ca-certificates >/dev/null
	cd /src
	exec env -i HOME=/root LANG=C.UTF-8 CI="${CI:-}" GOPROXY="$GOPROXY" GOFLAGS="$GOFLAGS" \
		PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

if [ "${1:-}" = --inside ]; then
	shift
	inside "$@"
fi

suite=${1:-}
[ -n "$suite" ] || {
	echo "usage: pristine.sh SUITE [COMMAND...]" >&2
	exit 2
}
shift
[ $# -gt 0 ] || set -- .ci/run

cannot() {
	echo "pristine: no Debian $suite: $*" >&2
	exit 3
}

[ "$(id -u)" = 0 ] || cannot "this needs root"
for tool in debootstrap unshare pivot_root git; do
	command -v $tool >/dev/null || cannot "$tool is missing"
done
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tlsd
root=$cache/pristine-$suite
mkdir -p "$cache"
if [ ! -e "$root" ]; then
	rm -rf "$root.unfinished"
	debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev,git "$suite" "$root.unfinished" \
		${TLSD_DEBIAN_MIRROR:+"$TLSD_DEBIAN_MIRROR"} >"$root.log" 2>&1 || cannot "$(tail -n 1 "$root.log")"
	mv "$root.unfinished" "$root"
fi

GOPROXY=$(go env GOPROXY) GOFLAGS=$(go env GOFLAGS)
export GOPROXY GOFLAGS
work=$(mktemp -d "$cache/pristine.XXXXXX")
# When this trap runs, the namespace and its mounts are gone. So rm cannot reach into a mount.
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
mkdir -p "$work/upper/etc/apt/apt.conf.d" "$work/work" "$work/root"
git clone -q --no-hardlinks . "$work/upper/src"
cp /etc/resolv.conf /etc/hosts "$work/upper/etc/"
# The root gets the certificate authorities that were added to this machine, such as a proxy's.
if [ -d /usr/local/share/ca-certificates ]; then
	mkdir -p "$work/upper/usr/local/share"
	cp -r /usr/local/share/ca-certificates "$work/upper/usr/local/share/"
fi
# The root's apt uses the proxies of the machine's apt, and accepts old lists if the machine's apt
# accepts them.
apt-config dump | grep -iE '^Acquire::(https?::Proxy|Check-Valid-Until|Check-Date)' \
	>"$work/upper/etc/apt/apt.conf.d/90machine" || :
status=0
unshare --pid --fork --kill-child --mount --ipc --uts \
	sh scripts/pristine.sh --inside "$root" "$work" "$(go env GOROOT)" "$@" || status=$?
exit "$status"
