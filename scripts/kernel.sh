#!/bin/sh
# kernel.sh [SUITE...] - run tests under other kernels: tests of the confinement, of attacks by
# local users, and of other things that depend on the kernel.
#
# The kernels of Debian 12 (6.1) and 13 (6.12) run in qemu. The root file system of each machine is
# in memory, made of packages of the same Debian. A third machine has Debian 12's kernel without
# Landlock. The tests run as root, and tlsshim doctor shows the confinement. SUITE is a folder of
# tests, such as test/e2e/tlsd; default: the folders of $all below.
#
# qemu emulates the processor, because a host that is a virtual machine itself may lack KVM. The
# guest's clock counts instructions (-icount, which wants one processor). So the tests do not notice
# that the guest is slow, or that the machine is busy.
#
# Environment:
#   TLSD_KERNEL_CACHE   folder of kernels and root file systems; default
#                       $XDG_CACHE_HOME/tlsd/kernels. What is younger than a day is not made anew.
#   TLSD_KERNEL_ONLY    machines to run, separated by blanks: "6.1 6.12"; default: all
#   TLSD_KERNEL_RUN     only tests that match this expression, as with go test -run
#   TLSD_KERNEL_TIME    the longest that one machine may take, in seconds; default 3600
#   TLSD_DEBIAN_MIRROR  see debian.sh
#
# If a test has failed, the exit status is 1. If nothing could be run, the script says why, and the
# exit status is 3.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=scripts/debian.sh
. scripts/debian.sh

# Each line: name of the machine, release of Debian, options of the kernel's command line.
machines='6.1 bookworm
6.1-without-landlock bookworm lsm=lockdown,capability,yama
6.12 trixie'

all='internal/confine internal/handoff internal/policy internal/safefile internal/supervisor rpc
test/e2e/tlsd test/hostile test/trust'
suites=${*:-$all}
cache=${TLSD_KERNEL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tlsd/kernels}
only=${TLSD_KERNEL_ONLY:-}
packages='libc6-dev gcc libssl-dev openssl ca-certificates dash coreutils findutils grep sed
util-linux mount iproute2'

skip() {
	echo "kernel: SKIPPED: $*" >&2
	exit 3
}

# populate RELEASE makes kernel and root.cpio of a release anew.
populate() {
	dir=$cache/$1 root=$cache/$1/root
	rm -rf "$dir"
	mkdir -p "$root" "$dir/linux"
	debian_apt "$dir/apt" "$1"
	export APT_CONFIG="$dir/apt/apt.conf"
	apt-get -qq update
	image=$(apt-cache depends --important linux-image-amd64 |
		sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p')
	# shellcheck disable=SC2086 # a list
	apt-get -qq -y --download-only install $packages
	(cd "$dir/linux" && apt-get -qq download "$image")
	debian_unpack "$dir/apt" "$root"
	dpkg-deb --fsys-tarfile "$dir"/linux/*.deb | tar -C "$dir/linux" -x ./boot
	mv "$dir"/linux/boot/vmlinuz-* "$dir/vmlinuz"
	ln -sf gcc "$root/usr/bin/cc"
	rm -f "$root"/usr/bin/*lto-dump* # 30 MB
	(cd "$root" && find . | cpio --quiet -o -H newc) >"$dir/root.cpio"
	rm -rf "$dir/apt" "$dir/linux" "$root"
	touch "$dir/complete"
}

# build fills $built/tree with the programs, the tests and what they read. The function run adds
# this tree to the root file system of each machine.
build() {
	tests=$built/tree/tests
	mkdir -p "$tests/path" "$built/tree/src"
	export CGO_ENABLED=0
	for program in tlsd tlsshim; do
		go build -trimpath -o "$tests/$program" "./cmd/$program"
	done
	# test/e2e/tlsd builds a tlsd of its own, but the guest has no Go. So tlsd is built here,
	# and a script in place of go copies it.
	go build -trimpath -ldflags '-X tlsd/internal/version.Version=1.2.3-test' \
		-o "$tests/tlsd-of-tests" ./cmd/tlsd
	cat >"$tests/path/go" <<-'END'
		#!/bin/sh
		case "$1 $*" in
		build*) while [ "$1" != -o ]; do shift; done && exec cp /tests/tlsd-of-tests "$2" ;;
		run*cmd/tlsshim*) shift 2 && exec /tests/tlsshim "$@" ;;
		esac
		echo "this stand-in for go cannot do that: $*" >&2
		exit 1
	END
	compile() { cc -std=c11 -O2 "$@"; }
	compile -fPIC -shared -fvisibility=hidden -Wl,-z,defs -o "$tests/TlsPlugin.so" \
		cmd/tlsshim/plugin/*.c -pthread
	compile -o "$tests/domhost" test/plugin/domhost/src/*.c -ldl -lm
	compile -Icmd/tlsshim/plugin -o "$tests/host" internal/testhost/src/*.c -ldl -pthread
	for suite in $suites; do
		go test -c -o "$tests/$(echo "$suite" | tr / -).test" "./$suite"
	done
	tar -c --exclude='*.go' --exclude=./bin --exclude=./.git --exclude=./bench . |
		tar -x -C "$built/tree/src"
	# The archive has no *.go. But a test needs the files of the generated seccomp filter: it
	# compares the filter with the lists of the Go package internal/confine/filter.
	cp -p internal/confine/filter_linux_*.go "$built/tree/src/internal/confine"
	chmod +x "$tests/path/go"
}

# guest prints a script, which is the first process (init) of each machine. The script's lines about
# results begin with "kernel: ".
guest() {
	cat <<-'END'
		#!/bin/sh
		export PATH=/tests/path:/tests:/usr/sbin:/usr/bin HOME=/tmp TMPDIR=/tmp LC_ALL=C
		export TLSD_TEST_BIN=/tests TLSD_CONFIG=none
		count() { grep -c "^ *--- $1" /tmp/log; }
		mount -t proc proc /proc
		mount -t sysfs sysfs /sys
		mount -t devtmpfs dev /dev
		mkdir -p /dev/pts /dev/shm
		mount -t devpts devpts /dev/pts
		mount -t tmpfs -o mode=1777 tmpfs /dev/shm
		mount -t tmpfs -o mode=1777 tmpfs /tmp
		mount -t tmpfs -o mode=755 tmpfs /run
		mount -t cgroup2 cgroup2 /sys/fs/cgroup
		echo +memory >/sys/fs/cgroup/cgroup.subtree_control
		mount -t securityfs securityfs /sys/kernel/security
		ip link set lo up
		echo
		echo "kernel: Linux $(uname -r), security modules $(cat /sys/kernel/security/lsm)"
		tlsd --socket /run/tlsd.sock 2>/tmp/tlsd.log &
		for n in $(seq 600); do [ -S /run/tlsd.sock ] || sleep 0.1; done
		tlsshim doctor | sed -n '/ confinement /{p;n;/^ /p};/^calls/p' | sed 's/^/kernel: doctor: /'
		kill $!
		wait
	END
	echo "run='${TLSD_KERNEL_RUN:-.}'"
	# shellcheck disable=SC2086 # a list
	echo "for suite in" $suites "; do"
	cat <<-'END'
			cd "/src/$suite"
			"/tests/$(echo "$suite" | tr / -).test" -test.v -test.run "$run" \
				-test.parallel 2 -test.timeout 60m >/tmp/log 2>&1
			status=$?
			[ "$status" = 0 ] || cat /tmp/log
			echo "kernel: $suite: $(count PASS) passed, $(count FAIL) failed," \
				"$(count SKIP) skipped, exit status $status"
			grep -A 1 '^ *--- SKIP' /tmp/log | grep '_test.go:' |
				sed 's/^.*_test.go:[0-9]*: /kernel:   skipped: /' | sort | uniq
		done
		echo "kernel: end"
		echo o >/proc/sysrq-trigger
		sleep 60
	END
}

# run NAME RELEASE [OPTION] runs one machine.
run() {
	(cd "$built/tree" && find . | cpio --quiet -o -H newc) |
		cat "$cache/$2/root.cpio" - >"$built/initrd"
	echo "kernel: machine $1"
	timeout -k 5 "${TLSD_KERNEL_TIME:-3600}" qemu-system-x86_64 -M q35 -cpu max -m 3G \
		-accel tcg,thread=single -icount shift=1,sleep=off -rtc clock=vm -nographic -nic none -no-reboot \
		-kernel "$cache/$2/vmlinuz" -initrd "$built/initrd" \
		-append "console=ttyS0 quiet panic=-1 ${3:-}" </dev/null >"$built/raw" 2>&1 || :
	tr -d '\r' <"$built/raw" >"$built/log"
	wanted=$(echo "$suites" | wc -w)
	# Each suite must have a test that has passed. With TLSD_KERNEL_RUN one suite is enough.
	some='[1-9][0-9]*'
	[ -z "${TLSD_KERNEL_RUN:-}" ] || some='[0-9]*'
	good=$(grep -c "^kernel: .*: $some passed, 0 failed, .* exit status 0\$" "$built/log") || :
	if [ "$good" = "$wanted" ] && grep -q '^kernel: end' "$built/log" &&
		grep -q '^kernel: .*: [1-9][0-9]* passed' "$built/log"; then
		grep '^kernel: ' "$built/log"
	else
		status=1
		cat "$built/log"
		echo "kernel: machine $1: FAILED" >&2
	fi
}

# A shell ignores set -e in a function that is called in a condition. So the condition in the loop
# at the end does not call populate. It runs this script again with --populate. In the new process
# set -e ends populate at the first failure.
if [ "${1:-}" = --populate ]; then
	populate "$2"
	exit
fi
missing=$(debian_lacks qemu-system-x86_64 cpio timeout go cc)
[ -z "$missing" ] || skip "this machine lacks:$missing"
[ "$(dpkg --print-architecture)" = amd64 ] || skip "the guests are amd64, and this machine is not"
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
status=0 ran=
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
trap 'exit 130' INT TERM
while read -r name release options; do
	case " ${only:-$name} " in *" $name "*) ;; *) continue ;; esac
	log=$cache/$release.log
	if ! debian_fresh "$cache/$release/complete" 1 scripts/kernel.sh &&
		! sh scripts/kernel.sh --populate "$release" >"$log" 2>&1 9>&- </dev/null; then
		echo "kernel: machine $name: SKIPPED: $(debian_reason "$log")" >&2
		continue
	fi
	if [ -z "$ran" ]; then
		build
		guest >"$built/tree/init"
		chmod +x "$built/tree/init"
	fi
	ran=1
	run "$name" "$release" "$options" </dev/null
done <<END
$machines
END
[ -n "$ran" ] || skip "no kernel could be prepared"
exit "$status"
