#!/bin/sh
# packages.sh [FOLDER] - build the .deb and the .rpm into FOLDER, by default bin/packages.
#
#   VERSION      of the packages; by default that of the source
#   MAINTAINER   as package managers show it: Name <address>
#
# nfpm, a Go program, makes the packages; the go command fetches it. It is no dependency of tlsd.
set -eu
cd "$(dirname "$0")/.."
out=${1:-bin/packages}
VERSION=$(sh scripts/version.sh "${VERSION:-}")
MAINTAINER=${MAINTAINER:-The tlsd authors <tlsd@example.invalid>}
ARCH=$(go env GOARCH)
# The time of all files is that of the commit, so that two builds are equal.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1767225600)}
export VERSION MAINTAINER ARCH SOURCE_DATE_EPOCH
nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2

work=bin/packages root=bin/packages/root
rm -rf "$root"
mkdir -p "$root" "$out"
# Without symbols: a crash of a Go program names its functions all the same.
make --no-print-directory BIN=$work/build VERSION="$VERSION" STRIP=1 LDFLAGS=-s build $work/build/NOTICES
make --no-print-directory BIN=$work/build VERSION="$VERSION" DESTDIR="$root" PREFIX=/usr install
# The C library must have what the programs use.
LIBC=$(readelf -VW "$root/usr/lib/tlsd/TlsPlugin.so" "$root/usr/bin/tlsd" | sed -n 's/.*Name: GLIBC_\([0-9.]*\).*/\1/p' | sort -V | tail -1)
export LIBC
doc=$root/usr/share/doc/tlsd
# /etc has the sample.
rm -f "$doc/tlsd.toml"
{
	cat LICENSE
	echo
	cat $work/build/NOTICES
} >"$doc/copyright"
rm -f "$doc/LICENSE"
gzip -9n "$root"/usr/share/man/man*/*
gzip -9nc "$doc/CHANGELOG.md" >"$doc/changelog.gz"
rm -f "$doc/CHANGELOG.md"
# Debian wants its own form of a changelog, too.
printf 'tlsd (%s) unstable; urgency=medium\n\n  * changelog.gz has what changed.\n\n -- %s  %s\n' "$VERSION" "$MAINTAINER" \
	"$(LC_ALL=C date -u -d "@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')" | gzip -9n >"$doc/changelog.Debian.gz"
mkdir -p "$root/usr/share/lintian/overrides"
cp packaging/lintian-overrides "$root/usr/share/lintian/overrides/tlsd"
find "$root" -type d -exec chmod 755 {} +
for kind in deb rpm; do
	CGO_ENABLED=0 go run $nfpm package --config packaging/nfpm.yaml --packager $kind --target "$out"
done
