#!/bin/sh
# version.sh [VERSION] - print VERSION, or the version of this source tree if none is given.
set -eu
cd "$(dirname "$0")/.."
[ -z "${1:-}" ] || { printf '%s\n' "$1"; exit; }
sed -n 's/^var Version = "\(.*\)"$/\1/p' internal/version/version.go
