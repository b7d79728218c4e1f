#!/bin/sh
# demo.sh - the demonstration of "make demo". It needs everything in bin/.
#
# A server script and a client script talk TLS through the plugin and a private tlsd. Then curl, or
# else openssl, fetches the same page. Everything lies in one temporary folder, listens on loopback
# only, and is gone at the end. The exit status is 0 only if all of it worked.
set -eu

bin=$(cd "$(dirname "$0")/../bin" && pwd)
examples=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
tlsd='' server=''
seconds=30 # the limit of each step

# stop PID: end a process of ours, by force if it has not left after 5 seconds.
stop() {
	[ -n "$1" ] && kill "$1" 2>/dev/null || return 0
	n=0
	while kill -0 "$1" 2>/dev/null && [ $n -lt 50 ]; do
		sleep 0.1
		n=$((n + 1))
	done
	kill -9 "$1" 2>/dev/null || true
	wait "$1" 2>/dev/null || true
}

cleanup() {
	status=$?
	trap - EXIT INT TERM
	stop "$server"
	stop "$tlsd"
	if [ "$status" != 0 ]; then
		for log in "$dir"/*.log; do
			[ -s "$log" ] && sed "s|^|  ${log##*/}: |" "$log" >&2
		done
		echo "The demo did not work (status $status)." >&2
	fi
	rm -rf "$dir"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

heading() { printf '\n== %s\n' "$1"; }
indent() { sed 's/^/   /'; }
die() {
	echo "demo: $1" >&2
	exit 1
}

# until_true WHAT COMMAND...: repeat the command until it succeeds. Die with the text "no WHAT" if
# tlsd or the server script has ended, or if the command still fails after the time limit.
until_true() {
	what=$1
	shift
	n=0
	until "$@"; do
		kill -0 "$tlsd" 2>/dev/null || die "no $what: tlsd has ended"
		[ -z "$server" ] || kill -0 "$server" 2>/dev/null || die "no $what: the server script has ended"
		[ $n -lt $((seconds * 10)) ] || die "no $what after $seconds seconds"
		sleep 0.1
		n=$((n + 1))
	done
}

# The functions below look at the kernel's list of sockets. They make no trial connection, because
# the server script would count it as one of its COUNT clients.
port_hex() { printf '%04X' "$1"; }
in_use() { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q "^ *[0-9]*: [0-9A-F]*:$(port_hex "$1") "; }
listening() { grep -q "^ *[0-9]*: [0-9A-F]*:$(port_hex "$1") 00000000:0000 0A" /proc/net/tcp; }

# run LOG COMMAND...: run the command with a time limit, show its output indented, die if it fails.
run() {
	log=$dir/$1
	shift
	if timeout "$seconds" "$@" >"$log" 2>&1; then
		indent <"$log"
	else
		die "failed: $*"
	fi
}

for program in tlsd domhost TlsPlugin.so; do
	[ -e "$bin/$program" ] || die "$bin/$program is missing; run make build"
done

heading "A throw-away certificate authority and a certificate for localhost"
cat >"$dir/req.cnf" <<EOF
[req]
distinguished_name = dn
prompt = no
[dn]
CN = tlsd demo CA
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:localhost, IP:127.0.0.1
extendedKeyUsage = serverAuth
EOF
(
	cd "$dir"
	umask 077
	openssl ecparam -name prime256v1 -genkey -noout -out ca.key
	openssl ecparam -name prime256v1 -genkey -noout -out server.key
	openssl req -x509 -new -config req.cnf -extensions ca -key ca.key -sha256 -days 2 -out ca.pem
	openssl req -new -config req.cnf -subj /CN=localhost -key server.key -out server.csr
	openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -set_serial 2 -sha256 -days 2 \
		-extfile req.cnf -extensions server -out server.crt
) >"$dir/openssl.log" 2>&1
rm "$dir/openssl.log" # of interest only if that failed
echo "   $(openssl x509 -in "$dir/server.crt" -noout -subject -issuer | paste -sd ' ' -)"

heading "A private tlsd"
"$bin/tlsd" --socket "$dir/tlsd.sock" >"$dir/tlsd.log" 2>&1 &
tlsd=$!
until_true "socket of tlsd" test -S "$dir/tlsd.sock"
export TLSD_SOCKET="$dir/tlsd.sock" TLSD_AUTOSTART=0
echo "   process $tlsd listens on $TLSD_SOCKET"

heading "A server script, examples/demo-server.dom"
port=
n=0
while [ -z "$port" ]; do
	# The kernel takes ports for outgoing connections from a range above these.
	try=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 10000))
	in_use $try || port=$try
	n=$((n + 1))
	[ $n -lt 100 ] || die "no free port found"
done
timeout $((4 * seconds)) "$bin/domhost" -D PORT="$port" -D "CERT=\"$dir/server.crt\"" -D "KEY=\"$dir/server.key\"" \
	-D COUNT=2 "$examples/demo-server.dom" >"$dir/server.log" 2>&1 &
server=$!
until_true "server script on port $port" listening "$port"
echo "   listens on 127.0.0.1:$port"

heading "A client script, examples/demo-client.dom"
run client.log "$bin/domhost" -D PORT="$port" -D "CA=\"$dir/ca.pem\"" "$examples/demo-client.dom"

if command -v curl >/dev/null 2>&1; then
	heading "The same page with curl: $(curl --version | sed -n '1s/^\(curl [^ ]*\).*/\1/p')"
	run curl.log curl --silent --show-error --noproxy '*' --cacert "$dir/ca.pem" "https://localhost:$port/"
else
	heading "The same page with openssl s_client: $(openssl version)"
	printf 'GET / HTTP/1.0\r\n\r\n' >"$dir/request"
	run s_client.log sh -c "openssl s_client -quiet -verify_return_error -connect localhost:$port -CAfile '$dir/ca.pem' <'$dir/request' 2>'$dir/s_client-errors.log'"
fi
grep -q 'Hello from a DominScript server' "$log" || die "the page is not the server's"

heading "What the server script saw"
wait "$server" || die "the server script failed"
server=
indent <"$dir/server.log"

heading "Done: everything worked, and tlsd is being stopped"
