#!/bin/sh
# packages.sh [FOLDER] - build the .deb and the .rpm into FOLDER, by default bin/packages.
#
# Environment:
#   VERSION      version of the packages; default: that of the source
#   MAINTAINER   Name <address>, which package managers show
#
# nfpm, a Go program, makes the packages. The go command fetches it. tlsd does not depend on nfpm.
set -eu
cd "$(dirname "$0")/.."
out=${1:-bin/packages}
VERSION=$(sh scripts/version.sh "${VERSION:-}")
MAINTAINER=${MAINTAINER:-The tlsd authors <tlsd@example.invalid>}
ARCH=$(go env GOARCH)
# All files get the time of the commit, so that two builds are equal.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1767225600)}
export VERSION MAINTAINER ARCH SOURCE_DATE_EPOCH
nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2

# $root and $pages have files for both packages. In the .rpm the files of $pages are marked as
# documents. $debian has files for the .deb only.
work=bin/packages root=$work/root pages=$work/pages debian=$work/debian
rm -rf "$root" "$pages" "$debian"
mkdir -p "$root" "$pages" "$debian" "$out"
# STRIP removes the symbols. The report of a Go program's crash does not need them.
make --no-print-directory BIN=$work/build VERSION="$VERSION" STRIP=1 LDFLAGS=-s build $work/build/NOTICES
make --no-print-directory BIN=$work/build VERSION="$VERSION" DESTDIR="$root" PREFIX=/usr install
# The programs need symbols of several versions of the C library. The packages require the newest of
# these versions.
LIBC=$(readelf -VW "$root/usr/lib/tlsd/TlsPlugin.so" "$root/usr/bin/tlsd" | sed -n 's/.*Name: GLIBC_\([0-9.]*\).*/\1/p' | sort -V | tail -1)
export LIBC
# make install puts the file for pkg-config below /usr/lib. Fedora's pkg-config does not look there.
# Both Debian's and Fedora's look below /usr/share, so the packages have the file there.
mv "$root/usr/lib/pkgconfig" "$root/usr/share/"
doc=$root/usr/share/doc/tlsd
# make install puts the sample tlsd.toml among the documents. In the packages it is
# /etc/tlsd/tlsd.toml instead.
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
mkdir -p "$pages/usr/share" "$debian/usr/share/doc/tlsd" "$debian/usr/share/lintian/overrides"
mv "$root/usr/share/doc" "$root/usr/share/man" "$pages/usr/share/"
mv "$pages/usr/share/doc/tlsd/copyright" "$debian/usr/share/doc/tlsd/"
# Debian wants its own form of a changelog, too.
printf 'tlsd (%s) unstable; urgency=medium\n\n  * changelog.gz has what changed.\n\n -- %s  %s\n' "$VERSION" "$MAINTAINER" \
	"$(LC_ALL=C date -u -d "@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')" | gzip -9n >"$debian/usr/share/doc/tlsd/changelog.Debian.gz"
cp packaging/lintian-overrides "$debian/usr/share/lintian/overrides/tlsd"
find "$root" "$pages" "$debian" -type d -exec chmod 755 {} +
{
	cat packaging/nfpm.yaml
	(cd "$pages" && find usr -type f) | LC_ALL=C sort | sed "s|.*|  - {src: $pages/&, dst: /&, type: doc}|"
} >$work/nfpm.yaml
for kind in deb rpm; do
	CGO_ENABLED=0 go run $nfpm package --config $work/nfpm.yaml --packager $kind --target "$out"
done
