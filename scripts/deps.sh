#!/bin/sh
# deps.sh WHAT - install what a target of the Makefile needs. WHAT is one of
#   build|test|services|check|scan|matrix|arm64|kernels|bench|systemd|packages|containers|monitoring.
# build is also for the demo. scan is for the scanners, matrix for the matrix of OpenSSL's versions.
#
# It looks for each command first, and calls apt-get only if something is missing. So it does
# nothing on a prepared machine. If apt-get cannot be used, it prints the missing packages and
# fails.
set -eu

case "${1:-}" in
build) want='cc:gcc openssl:openssl curl:curl' headers='stdlib.h:libc6-dev' ;;
test)
	want='cc:gcc make:make openssl:openssl curl:curl socat:socat luajit:luajit
		python3:python3 gnutls-cli:gnutls-bin node:nodejs valgrind:valgrind
		unshare:util-linux ip:iproute2 clang:clang musl-gcc:musl-tools g++:g++
		nghttp:nghttp2-client nghttpd:nghttp2-server'
	headers='stdlib.h:libc6-dev'
	;;
services)
	want='cc:gcc openssl:openssl pg_ctlcluster:postgresql postfix:postfix
		dovecot:dovecot-imapd redis-server:redis-server mosquitto:mosquitto nginx:nginx
		javac:default-jdk-headless flock:util-linux'
	headers='stdlib.h:libc6-dev' quiet=1 keyring=1
	;;
check)
	want='cc:gcc git:git cppcheck:cppcheck shellcheck:shellcheck codespell:codespell'
	headers='stdlib.h:libc6-dev'
	;;
scan) want='cc:gcc sslscan:sslscan testssl:testssl.sh' headers='stdlib.h:libc6-dev' ;;
matrix)
	want='cc:gcc testssl:testssl.sh flock:util-linux unshare:util-linux ip:iproute2'
	headers='stdlib.h:libc6-dev' keyring=1
	;;
arm64)
	want='aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu qemu-aarch64-static:qemu-user-static
		flock:util-linux unshare:util-linux ip:iproute2'
	headers='../aarch64-linux-gnu/include/stdlib.h:libc6-dev-arm64-cross' keyring=1
	;;
kernels)
	want='cc:gcc qemu-system-x86_64:qemu-system-x86 cpio:cpio flock:util-linux'
	headers='stdlib.h:libc6-dev' keyring=1
	;;
bench)
	want='cc:gcc openssl:openssl stunnel:stunnel4 haproxy:haproxy socat:socat'
	headers='stdlib.h:libc6-dev openssl/ssl.h:libssl-dev'
	;;
systemd)
	want='cc:gcc make:make unshare:util-linux ip:iproute2 systemd-analyze:systemd
		python3:python3'
	headers='stdlib.h:libc6-dev ../share/pam-configs/systemd:libpam-systemd
		../lib/systemd/system/dbus.socket:dbus'
	;;
packages)
	want='cc:gcc make:make unshare:util-linux ip:iproute2 debootstrap:debootstrap
		lintian:lintian mandoc:mandoc rpm:rpm rpm2cpio:rpm2cpio cpio:cpio rpmlint:rpmlint
		zsh:zsh fish:fish'
	headers='stdlib.h:libc6-dev' keyring=1
	;;
containers)
	want='cc:gcc make:make unshare:util-linux ip:iproute2 debootstrap:debootstrap
		podman:podman crun:crun'
	headers='stdlib.h:libc6-dev' keyring=1 quiet=1
	;;
# On a machine with systemd, the package prometheus starts a service at each boot. So make test does
# not install the package. Only make test-monitoring installs it.
monitoring)
	want='cc:gcc prometheus:prometheus promtool:prometheus'
	headers='stdlib.h:libc6-dev' quiet=1
	;;
*)
	echo "usage: deps.sh build|test|services|check|scan|matrix|arm64|kernels|bench|systemd|packages|containers|monitoring" >&2
	exit 2
	;;
esac

command -v go >/dev/null 2>&1 || {
	echo "deps: go is missing: install Go 1.26 or newer from https://go.dev/dl" >&2
	exit 1
}

missing=
for pair in $want; do
	command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
for pair in $headers; do
	[ -e "/usr/include/${pair%%:*}" ] || missing="$missing ${pair#*:}"
done
# Debian's keyring, for the signatures of Debian's packages. On a system other than Debian it must be
# installed first.
[ -z "${keyring:-}" ] || [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing="$missing debian-archive-keyring"
# libssl itself. Its folder and its version depend on the system.
found=
for so in /usr/lib/*/libssl.so.* /usr/lib64/libssl.so.* /usr/lib/libssl.so.* /lib/*/libssl.so.*; do
	[ -e "$so" ] && found=1
done
[ -n "$found" ] || missing="$missing openssl"
[ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ] || missing="$missing ca-certificates"

# get PACKAGE... - installs the packages. If it cannot, it prints their names and fails.
get() {
	[ $# -gt 0 ] || return 0
	sudo=
	if [ "$(id -u)" != 0 ]; then
		sudo='sudo -n'
	fi
	if ! command -v apt-get >/dev/null 2>&1 || { [ -n "$sudo" ] && ! $sudo true 2>/dev/null; }; then
		echo "deps: please install: $*" >&2
		exit 1
	fi
	echo "deps: installing: $*"
	# The tests start the servers themselves. So the packages must not start them now.
	if [ -n "${quiet:-}" ] && [ ! -e /usr/sbin/policy-rc.d ]; then
		printf '#!/bin/sh\nexit 101\n' >"$tmp/policy-rc.d"
		$sudo install -m 755 "$tmp/policy-rc.d" /usr/sbin/policy-rc.d
		trap '$sudo rm -f /usr/sbin/policy-rc.d; rm -rf "$tmp"' EXIT
		trap 'exit 130' INT TERM HUP # after a signal, dash does not run the trap of EXIT
	fi
	export DEBIAN_FRONTEND=noninteractive
	if ! { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends "$@"; } >"$tmp/log" 2>&1; then
		cat "$tmp/log" >&2
		exit 1
	fi
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# shellcheck disable=SC2086
get $missing

# The library for clang's fuzzer is in a package with clang's version in its name. In old releases
# clang's own package has it.
if [ "$1" = test ]; then
	echo 'int LLVMFuzzerTestOneInput(const char *data, unsigned long n) { return n > 9 && *data; }' >"$tmp/fuzz.c"
	clang -fsanitize=fuzzer,address -o "$tmp/fuzz" "$tmp/fuzz.c" 2>/dev/null ||
		get "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
fi
