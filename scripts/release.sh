#!/bin/sh
# release.sh [--dry-run] [--sign] VERSION - make a release of HEAD in bin/release/VERSION.
#
# It refuses in these cases: the work tree has changes, internal/version does not have VERSION,
# CHANGELOG.md does not have VERSION with a date, or the tag exists. Then it builds the packages
# twice, in clones in two folders, and refuses if the packages of the two builds differ. It writes
# the .deb, the .rpm, the source archive, the notes (the section of the changelog), and SHA256SUMS.
# At the end it makes the tag vVERSION.
#
#   --dry-run   everything but the tag
#   --sign      a signed tag, with the key of git's user.signingkey
#
# It pushes nothing, and prints the command that pushes HEAD and the tag.
set -eu
cd "$(dirname "$0")/.."

refuse() {
	echo "release: $*" >&2
	exit 1
}

dry='' kind=-a version=
for word; do
	case $word in
	--dry-run) dry=1 ;;
	--sign) kind=-s ;;
	-*) refuse "$word is not known" ;;
	*) version=$word ;;
	esac
done
echo "$version" | grep -qE '^[0-9]+\.[0-9]+\.[0-9]+$' || refuse "the version must be X.Y.Z, and is '$version'"
tag=v$version

changes=$(git status --porcelain)
[ -z "$changes" ] || refuse "the work tree has changes: commit them or put them aside:
$changes"
source=$(sh scripts/version.sh)
[ "$source" = "$version" ] || refuse "internal/version has $source: commit $version there first"
grep -qE "^## $version - [0-9]{4}-[0-9]{2}-[0-9]{2}\$" CHANGELOG.md ||
	refuse "CHANGELOG.md has no line '## $version - YYYY-MM-DD'"
! git rev-parse -q --verify "refs/tags/$tag" >/dev/null || refuse "the tag $tag exists"

out=bin/release/$version
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
rm -rf "$out"
mkdir -p "$out"

COMMIT=$(git rev-parse --short=12 HEAD)
export COMMIT
# The two folders have different names. If a program contained the path of its folder, the packages
# would differ.
for folder in one another/folder; do
	git clone -q . "$tmp/$folder/tlsd"
	(cd "$tmp/$folder/tlsd" && sh packaging/packages.sh "$tmp/$folder/packages") >"$tmp/log" 2>&1 || {
		cat "$tmp/log" >&2
		refuse "the packages cannot be built"
	}
done
diff -r "$tmp/one/packages" "$tmp/another/folder/packages" >&2 || refuse "two builds of the packages differ"
cp "$tmp"/one/packages/* "$out"
git archive --format=tar --prefix="tlsd-$version/" HEAD | gzip -9n >"$out/tlsd-$version.tar.gz"
sed -n "/^## $version - /,/^## /{/^## /!p;}" CHANGELOG.md | sed -e '/./,$!d' >"$out/NOTES.md"
[ -s "$out/NOTES.md" ] || refuse "the section $version of CHANGELOG.md is empty"
(cd "$out" && sha256sum -- * >"$tmp/SHA256SUMS" && mv "$tmp/SHA256SUMS" .)

echo "release: $out has"
cat "$out/SHA256SUMS"
if [ -n "$dry" ]; then
	echo "release: a dry run: no tag was made"
	exit 0
fi
{
	echo "tlsd $version"
	echo
	cat "$out/NOTES.md"
} | git tag "$kind" -F - --cleanup=verbatim "$tag"
echo "release: $tag is made; to publish: git push origin HEAD $tag"
