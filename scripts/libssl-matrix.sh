#!/bin/sh
# libssl-matrix.sh [flags of test/run/matrix] - run the conformance suites against OpenSSL
# 1.1.1, 3.0, 3.5, 3.6 and 4.0.
#
# For each of them a small root is made of the packages of the Debian release that has
# it: its libssl, its libc, its openssl, curl, python3, GnuTLS and sslscan. The packages come from the mirror that this
# machine's apt uses, with lists and state of their own; apt checks the signatures against
# Debian's keyring, and nothing is installed into the system. test/run/matrix then runs the
# tests in the roots.
#
# Environment:
#   TLSD_LIBSSL_CACHE   folder of the roots; default $XDG_CACHE_HOME/tlsd/libssl. Roots younger than a day are
#                       used as they are.
#   TLSD_DEBIAN_MIRROR  URL of a Debian mirror; default: the first of apt's sources, else deb.debian.org
#   TLSD_LIBSSL_ONLY    versions to run, separated by blanks: "3.0 4.0"; default: all
#
# A release that cannot be had is told, and counts as skipped; if none can, the exit status is 3. An
# interrupt ends the downloads; what they have left is taken away by the next run.
set -eu
cd "$(dirname "$0")/.."

cache=${TLSD_LIBSSL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tlsd/libssl}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
only=${TLSD_LIBSSL_ONLY:-}

# version, suite, package of the library. The suites that move on may one day have another version:
# that is found out when the package is there.
releases='1.1.1 bullseye libssl1.1
3.0 bookworm libssl3
3.5 trixie libssl3t64
3.6 sid libssl3t64
4.0 experimental libssl4'

# mirror prints the URL of the mirror that apt uses.
mirror() {
	if [ -n "${TLSD_DEBIAN_MIRROR:-}" ]; then
		echo "$TLSD_DEBIAN_MIRROR"
		return
	fi
	# A source of Debian itself: of the security archive and of others the path differs.
	for f in /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ -e "$f" ] || continue
		sed -n -e 's/^URIs:[[:space:]]*\([^[:space:]]*\).*/\1/p' \
			-e 's/^deb[[:space:]]\{1,\}\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]*\).*/\2/p' "$f"
	done | grep -m 1 '/debian/*$' || echo http://deb.debian.org/debian
}

# configure writes apt's configuration for one root. The machine's own is left out, for it may have hooks and
# other sources, except for its proxies and for what it thinks of a mirror that stands still.
configure() { # dir suite
	mkdir -p "$1/lists/partial" "$1/archives/partial"
	suites=$2
	# experimental is no whole release: what it does not have, sid has.
	[ "$2" = experimental ] && suites='sid experimental'
	for s in $suites; do
		echo "deb [signed-by=$keyring] $url $s main"
	done >"$1/sources.list"
	cat >"$1/preferences" <<-END
		Package: openssl openssl-* libssl*
		Pin: release a=experimental
		Pin-Priority: 990
	END
	# Packages that dpkg would configure depend on debconf. Nothing is configured here.
	printf 'Package: debconf\nStatus: install ok installed\nVersion: 99\nArchitecture: all\nMaintainer: nobody\nDescription: left out\n' >"$1/status"
	{
		cat <<-END
			Dir::State "$1";
			Dir::State::status "$1/status";
			Dir::State::extended_states "$1/extended_states";
			Dir::Cache "$1";
			Dir::Cache::pkgcache "";
			Dir::Cache::srcpkgcache "";
			Dir::Etc::main "/dev/null";
			Dir::Etc::parts "/dev/null";
			Dir::Etc::sourcelist "$1/sources.list";
			Dir::Etc::sourceparts "/dev/null";
			Dir::Etc::preferences "$1/preferences";
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
	} >"$1/apt.conf"
}

# populate makes the root of one release in a new folder.
populate() { # version suite library dir
	new=$4
	apt=$cache/apt/$2
	rm -rf "$new"
	mkdir -p "$new/root" "$new/dev" "$apt"
	configure "$apt" "$2"
	export APT_CONFIG="$apt/apt.conf"
	apt-get -qq update
	rm -f "$apt"/archives/*.deb
	apt-get -qq -y --download-only install "$3" openssl curl python3 gnutls-bin sslscan dash ca-certificates libc6-dev
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
	# Debian's merged /usr, which older packages leave to the installer.
	mkdir -p "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib" "$root/usr/lib64"
	for d in bin sbin lib lib64; do
		ln -s "usr/$d" "$root/$d"
	done
	for deb in "$apt"/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -C "$root" -x --keep-directory-symlink --no-same-owner \
			--exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale --exclude=./usr/lib/*/gconv
	done
	# Absolute links lead elsewhere when a compiler follows them from outside.
	find "$root/usr/lib" "$root/usr/lib64" -type l -lname '/*' | while read -r link; do
		ln -srfn "$root$(readlink "$link")" "$link"
	done
	dpkg-deb -x "$new"/dev/libssl-dev_*.deb "$new/dev"
	rm -f "$apt"/archives/*.deb "$new"/dev/*.deb
	mkdir -p "$root/proc" "$root/dev" "$root/tmp" "$root/run" "$root/src" "$root/etc/ssl/certs" "$root/var/lib"
	echo '127.0.0.1 localhost' >"$root/etc/hosts"
	printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$root/etc/passwd"
	printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
	[ -e "$root/bin/sh" ] || ln -s dash "$root/bin/sh"
	# What update-ca-certificates does.
	cat "$root"/usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"
	echo "$got" >"$new/version"
}

# fetch puts a complete root into the cache, unless a young one is there, and says so with the file NAME.ok.
fetch() { # version suite library
	dir=$cache/$1
	rm -f "$dir.ok"
	# One made by another version of this script is not what it would make.
	if [ -z "$(find "$dir/version" -mtime -1 -newer scripts/libssl-matrix.sh 2>/dev/null)" ]; then
		populate "$1" "$2" "$3" "$dir.new"
		rm -rf "$dir"
		mv "$dir.new" "$dir"
	fi
	touch "$dir.ok"
}

for tool in apt-get apt-config dpkg-deb flock setsid unshare ip; do
	command -v "$tool" >/dev/null || missing="${missing:-} $tool"
done
[ -e "$keyring" ] || missing="${missing:-} $keyring"
url=$(mirror)
mkdir -p "$cache"

# For fetch_all: one release, in a process group of its own.
if [ "${1:-}" = --fetch ]; then
	shift
	fetch "$@"
	exit
fi

# fetch_all does so for all at once: most of the time goes into downloads and into unpacking.
fetch_all() {
	groups=
	# shellcheck disable=SC2154 # g is the trap's own
	trap 'for g in $groups; do kill -- "-$g" 2>/dev/null || :; done; exit 130' INT TERM
	while read -r version suite library; do
		case " ${only:-$version} " in *" $version "*) ;; *) continue ;; esac
		setsid sh scripts/libssl-matrix.sh --fetch "$version" "$suite" "$library" >"$cache/$version.log" 2>&1 </dev/null &
		groups="$groups $!"
	done <<-END
		$releases
	END
	wait
	trap - INT TERM
}

if [ -z "${missing:-}" ]; then
	echo "libssl-matrix: roots in $cache"
	exec 9>"$cache/lock"
	# Another run may fill the same cache, or run in its roots (test/run/matrix holds a shared lock).
	flock -n 9 || {
		echo "libssl-matrix: waiting for another run with the same roots"
		flock 9
	}
	fetch_all
fi
for version in $(echo "$releases" | cut -d ' ' -f 1); do
	case " ${only:-$version} " in *" $version "*) ;; *) continue ;; esac
	if [ -n "${missing:-}" ]; then
		set -- "$@" "$version=-this machine lacks:$missing"
	elif [ -e "$cache/$version.ok" ]; then
		set -- "$@" "$version=$cache/$version"
	else
		set -- "$@" "$version=-$(grep -m 1 '^E:' "$cache/$version.log" || tail -n 1 "$cache/$version.log" | grep . || echo "no root was made, and $cache/$version.log does not say why")"
	fi
done
# Not go run, which would not pass on signals.
CGO_ENABLED=0 go build -o "$cache/matrix" ./test/run/matrix
[ -n "${missing:-}" ] || exec 9>&-
exec "$cache/matrix" "$@"
