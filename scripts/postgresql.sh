#!/bin/sh
# postgresql.sh - print the folder of a root file system with PostgreSQL 17, for a machine whose own
# PostgreSQL is older.
#
# The root file system is made of the packages of Debian 13. The output is the folder, or "-" and
# the reason why there is no folder. The reason is also on the standard error. The exit status is
# always 0.
#
# Environment:
#   TLSD_POSTGRESQL_CACHE  folder of the root file system; default
#                          $XDG_CACHE_HOME/tlsd/postgresql-17. If the root file system is younger
#                          than 30 days, it is used as it is.
#   TLSD_DEBIAN_MIRROR     see debian.sh
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=scripts/debian.sh
. scripts/debian.sh

cache=${TLSD_POSTGRESQL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tlsd/postgresql-17}

skip() {
	echo "postgresql: SKIPPED: no PostgreSQL 17: $*" >&2
	echo "- $*"
	exit 0
}

populate() {
	rm -rf "$cache/new" "$cache/apt/archives"
	mkdir -p "$cache/new"
	debian_apt "$cache/apt" trixie
	# Left out: the tools for clusters, which need perl and users, and the compiler for queries,
	# which would be the largest download.
	debian_without "$cache/apt" postgresql-common postgresql-client-common ssl-cert libllvm19
	export APT_CONFIG="$cache/apt/apt.conf"
	apt-get -qq update
	apt-get -qq -y --download-only install postgresql-17 dash
	debian_unpack "$cache/apt" "$cache/new"
	chmod 1777 "$cache/new/tmp"
	: >"$cache/new/dev/null" # for PostgreSQL a plain file is enough
	chmod 666 "$cache/new/dev/null"
	rm -rf "$cache/root"
	mv "$cache/new" "$cache/root"
	touch "$cache/complete"
}

# A shell ignores set -e in a function that is called before ||. So the command before || below does
# not call populate. It runs this script again with --populate. In the new process set -e ends
# populate at the first failure.
if [ "${1:-}" = --populate ]; then
	populate
	exit
fi
missing=$(debian_lacks)
[ -z "$missing" ] || skip "this machine lacks:$missing"
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if ! debian_fresh "$cache/complete" 30 scripts/postgresql.sh; then
	rm -f "$cache/complete"
	sh scripts/postgresql.sh --populate >"$cache/log" 2>&1 9>&- </dev/null ||
		skip "$(debian_reason "$cache/log")"
fi
echo "$cache/root"
