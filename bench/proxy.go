package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// A proxy accepts plain TCP on a port of loopback and speaks TLS to the sink. It verifies the
// sink's certificate, as all contestants do.
type proxy struct {
	*process
	port int
}

// A proxyKind describes one of the proxies and its command line. A proxy runs with its default
// settings, except for two groups. The first group is what the measurements need: the sink's
// certificate, and a limit for many connections. The second group makes the proxy faster: no Nagle
// delay, and larger buffers if the proxy has a setting for them.
type proxyKind struct {
	name, exe, pkg string
	versionArg     string
	version        func(output string) string
	// argv gives the command line. It writes the configuration file, if the proxy needs one.
	argv func(a *arena, port int) ([]string, error)
}

var proxyKinds = []proxyKind{
	{
		name: "stunnel", exe: "stunnel", pkg: "stunnel4",
		versionArg: "-version", version: pattern(`stunnel [\d.]+`),
		argv: func(a *arena, port int) ([]string, error) {
			conf := filepath.Join(a.dir, "stunnel.conf")
			return []string{"stunnel", conf}, write(conf, `foreground = yes
pid =
debug = err
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[sink]
client = yes
accept = 127.0.0.1:%d
connect = 127.0.0.1:%d
CAfile = %s
verifyChain = yes
checkIP = 127.0.0.1
`, port, a.port, a.id.ca)
		},
	},
	{
		name: "haproxy", exe: "haproxy", pkg: "haproxy",
		versionArg: "-v", version: pattern(`version [^ ]+`),
		argv: func(a *arena, port int) ([]string, error) {
			conf := filepath.Join(a.dir, "haproxy.cfg")
			return []string{"haproxy", "-db", "-f", conf}, write(conf, `global
	maxconn 4000
	tune.bufsize 65536
defaults
	mode tcp
	timeout connect 10s
	timeout client 60s
	timeout server 60s
listen sink
	bind 127.0.0.1:%d
	server sink 127.0.0.1:%d ssl verify required ca-file %s verifyhost localhost sni str(localhost)
`, port, a.port, a.id.ca)
		},
	},
	{
		name: "socat", exe: "socat", pkg: "socat",
		versionArg: "-V", version: pattern(`socat version [^ ]+`),
		argv: func(a *arena, port int) ([]string, error) {
			return []string{"socat", "-b", "65536",
				fmt.Sprintf(
					"TCP4-LISTEN:%d,bind=127.0.0.1,reuseaddr,fork,"+
						"nodelay,backlog=1024", port),
				fmt.Sprintf(
					"OPENSSL:localhost:%d,pf=ip4,cafile=%s,verify=1,nodelay",
					a.port, a.id.ca)}, nil
		},
	},
}

// start starts the proxy and waits until it listens. exec.ErrNotFound means that it is not
// installed. If start returns a proxy together with an error, the caller must stop that proxy.
func (k *proxyKind) start(ctx context.Context, a *arena) (*proxy, error) {
	exe, err := exec.LookPath(k.exe)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.name, exec.ErrNotFound)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	argv, err := k.argv(a, port)
	if err != nil {
		return nil, err
	}
	argv[0] = exe
	p, err := launch(a.dir, k.name, nil, nil, argv...)
	if err != nil {
		return nil, err
	}
	if err := awaitPort(ctx, port, p); err != nil {
		err = fmt.Errorf("start %s: %w", k.name, err)
		return &proxy{p, port}, err
	}
	return &proxy{p, port}, nil
}

// pattern returns a function that finds the first match of the expression. If the match begins with
// "version ", the function leaves this word out.
func pattern(expression string) func(string) string {
	re := regexp.MustCompile(expression)
	return func(s string) string { return strings.TrimPrefix(re.FindString(s), "version ") }
}

func write(file, format string, args ...any) error {
	return os.WriteFile(file, fmt.Appendf(nil, format, args...), 0o600)
}
