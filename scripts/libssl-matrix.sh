#!/bin/sh
# libssl-matrix.sh [flags of test/run/matrix] - run the conformance suites against OpenSSL
# 1.1.1, 3.0, 3.5, 3.6 and 4.0.
#
# The script makes a root for each version: a folder with the file system of a small Debian. The
# packages (libssl, libc, openssl, curl, python3, GnuTLS and sslscan) come from a release of Debian
# that has this version of OpenSSL. debian.sh says which mirror is used. Then test/run/matrix runs
# the tests in the roots.
#
# Environment:
#   TLSD_LIBSSL_CACHE   folder of the roots; default $XDG_CACHE_HOME/tlsd/libssl. Roots younger than
#                       a day are used as they are.
#   TLSD_DEBIAN_MIRROR  see debian.sh
#   TLSD_LIBSSL_ONLY    versions to run, separated by blanks: "3.0 4.0"; default: all
#
# A version without a root is reported, and counts as skipped. If no version has a root, the exit
# status is 3. An interrupt ends the downloads, and the next run removes their files.
set -eu
cd "$(dirname "$0")/.."

cache=${TLSD_LIBSSL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tlsd/libssl}
# shellcheck source=scripts/debian.sh
. scripts/debian.sh
only=${TLSD_LIBSSL_ONLY:-}

# Each line: OpenSSL's version, Debian's suite, package of the library. A suite of Debian that is
# still in development may get another version of OpenSSL. So populate checks the version of the
# package that it has downloaded.
releases='1.1.1 bullseye libssl1.1
3.0 bookworm libssl3
3.5 trixie libssl3t64
3.6 sid libssl3t64
4.0 experimental libssl4'

# populate makes the root of one release in a new folder.
populate() { # version suite library dir
	new=$4
	apt=$cache/apt/$2
	rm -rf "$new"
	mkdir -p "$new/root" "$new/dev" "$apt"
	suites=$2
	# experimental is no complete release. sid has the other packages.
	[ "$2" = experimental ] && suites='sid experimental'
	# shellcheck disable=SC2086
	debian_apt "$apt" $suites
	cat >"$apt/preferences" <<-END
		Package: openssl openssl-* libssl*
		Pin: release a=experimental
		Pin-Priority: 990
	END
	export APT_CONFIG="$apt/apt.conf"
	apt-get -qq update
	rm -f "$apt"/archives/*.deb
	apt-get -qq -y --download-only install "$3" openssl curl python3 gnutls-bin sslscan dash \
		ca-certificates libc6-dev
	(cd "$new/dev" && apt-get -qq download libssl-dev)

	got=$(dpkg-deb -f "$apt"/archives/"$3"_*.deb Version)
	case $got in
	"$1"[.a-z]*) ;;
	*)
		echo "$2 has OpenSSL $got now" >&2
		return 1
		;;
	esac
	root=$new/root
	debian_unpack "$apt" "$root"
	# A compiler outside of the root follows these links. With an absolute link, it would find
	# a file of this machine. So absolute links become relative ones.
	find "$root/usr/lib" "$root/usr/lib64" -type l -lname '/*' | while read -r link; do
		ln -srfn "$root$(readlink "$link")" "$link"
	done
	dpkg-deb -x "$new"/dev/libssl-dev_*.deb "$new/dev"
	rm -f "$new"/dev/*.deb
	echo "$got" >"$new/version"
}

# fetch puts the root of a version into the cache, unless the cache has a young root of it already.
# In both cases, fetch then makes the file VERSION.ok, as the sign that the root is complete.
fetch() { # version suite library
	dir=$cache/$1
	rm -f "$dir.ok"
	if ! debian_fresh "$dir/version" 1 scripts/libssl-matrix.sh; then
		populate "$1" "$2" "$3" "$dir.new"
		rm -rf "$dir"
		mv "$dir.new" "$dir"
	fi
	touch "$dir.ok"
}

missing=$(debian_lacks setsid unshare ip)
mkdir -p "$cache"

# With --fetch, the script only fetches the root of one release. fetch_all, below, runs the script
# in this way for each release.
if [ "${1:-}" = --fetch ]; then
	shift
	fetch "$@"
	exit
fi

# fetch_all fetches the roots of all versions at the same time, because downloads take most of the
# time. Each fetch has a process group of its own, so that an interrupt can end its downloads.
fetch_all() {
	groups=
	# shellcheck disable=SC2154 # g is the trap's own
	trap 'for g in $groups; do kill -- "-$g" 2>/dev/null || :; done; exit 130' INT TERM
	while read -r version suite library; do
		case " ${only:-$version} " in *" $version "*) ;; *) continue ;; esac
		setsid sh scripts/libssl-matrix.sh --fetch "$version" "$suite" "$library" \
			>"$cache/$version.log" 2>&1 </dev/null &
		groups="$groups $!"
	done <<-END
		$releases
	END
	wait
	trap - INT TERM
}

if [ -z "$missing" ]; then
	echo "libssl-matrix: roots in $cache"
	exec 9>"$cache/lock"
	# If another run of this script has the lock, this run waits. The other run either fills the
	# cache, or has started test/run/matrix, which keeps a shared lock while it uses the roots.
	flock -n 9 || {
		echo "libssl-matrix: waiting for another run with the same roots"
		flock 9
	}
	fetch_all
fi
# The arguments of test/run/matrix: VERSION=ROOT, or VERSION=-REASON for a version without a root.
for version in $(echo "$releases" | cut -d ' ' -f 1); do
	case " ${only:-$version} " in *" $version "*) ;; *) continue ;; esac
	if [ -n "$missing" ]; then
		set -- "$@" "$version=-this machine lacks:$missing"
	elif [ -e "$cache/$version.ok" ]; then
		set -- "$@" "$version=$cache/$version"
	else
		set -- "$@" "$version=-$(debian_reason "$cache/$version.log")"
	fi
done
# go run would not pass on signals. So the program is built first, and then executed.
CGO_ENABLED=0 go build -o "$cache/matrix" ./test/run/matrix
[ -n "$missing" ] || exec 9>&-
exec "$cache/matrix" "$@"
