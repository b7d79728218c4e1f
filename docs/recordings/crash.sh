#!/bin/sh
# crash.sh - shows that a crash of libssl does not reach a script.
#
# A libssl that goes wrong on purpose (test/faults) crashes at the second SSL_new of each process.
# A script fetches three pages from openssl s_server. The files are in a temporary folder. The
# servers listen on loopback only. At the end all of this is gone.
set -eu

top=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
tlsd='' server=''
cleanup() {
	for pid in $server $tlsd; do
		kill "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	rm -rf "$dir"
}
trap cleanup EXIT

# wait_for FILE TEXT: wait until the file has the text.
wait_for() {
	n=0
	until grep -q "$2" "$1" 2>/dev/null; do
		n=$((n + 1))
		[ $n -lt 300 ] || {
			cat "$1" >&2
			exit 1
		}
		sleep 0.1
	done
}

cd "$top"
make -s build faultssl >/dev/null
cp bin/faultssl.so "$dir"

printf '\n== An order for a libssl that goes wrong on purpose\n'
echo '* SSL_new 2 segv' | tee "$dir/faultssl.so.orders" | sed 's/^/   /'

printf '\n== A private tlsd with this libssl, and openssl s_server as the peer\n'
bin/tlsd --socket "$dir/tlsd.sock" --libssl "$dir/faultssl.so" --log-format json 2>"$dir/tlsd.log" &
tlsd=$!
wait_for "$dir/tlsd.log" '"library loaded"'
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
	-addext subjectAltName=DNS:localhost -keyout "$dir/server.key" -out "$dir/server.crt" 2>/dev/null
openssl s_server -www -cert "$dir/server.crt" -key "$dir/server.key" -accept 127.0.0.1:0 \
	>"$dir/server.log" 2>&1 &
server=$!
wait_for "$dir/server.log" '^ACCEPT .*:'
port=$(sed -n 's/^ACCEPT .*://p' "$dir/server.log" | head -n 1)
printf '   tlsd is process %d\n   openssl s_server listens on 127.0.0.1:%d\n' "$tlsd" "$port"

printf '\n== A script fetches three pages: docs/recordings/crash.dom\n'
TLSD_SOCKET="$dir/tlsd.sock" TLSD_AUTOSTART=0 timeout 60 \
	bin/domhost -D "PORT=$port" -D "CA=\"$dir/server.crt\"" docs/recordings/crash.dom | sed 's/^/   /'

printf '\n== The log of tlsd\n'
wait_for "$dir/tlsd.log" '"worker ended unexpectedly"'
sed -n '/"worker ended unexpectedly"/s/.*"msg":\("[^"]*"\),\("worker":[0-9]*\).*\("cause":"[^"]*"\).*\("operation":"[^"]*"\).*/   \1 \2 \3 \4/p' \
	"$dir/tlsd.log"
