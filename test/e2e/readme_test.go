package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// block matches a code block of the README or of a guide that this test must run. The line
// <!-- test: NAME --> stands before the block. The block runs in a folder with the repository's
// bin, bindings and cmd. The test replaces three texts in it:
//
//	example.com     by localhost
//	443             by the port of the test's server
//	/run/tlsd.sock  by the socket of the test's daemon, which TLSD_SOCKET names too
var block = regexp.MustCompile("(?ms)^<!-- test: (\\w+) -->\n```\\w+\n(.*?)^```$")

// blocks says how to run a block with a name.
var blocks = map[string]struct {
	file   string // the block is saved in this file; if empty, sh runs the block itself
	run    string // the command for the file; {first comment} is the comment in its first line
	prints string // the output, a regular expression
	// If connect is set, the block is also run with a port that refuses connections. It must
	// then print an error.
	connect bool
}{
	"dominscript": {"client.dom", "bin/domhost client.dom",
		`TLSv1\.3 /CN=localhost\n(\d+ bytes\n)+`, true},
	"socat":  {"", "", socatAnswers, false},
	"shim":   {"", "", `1\n0\n/CN=localhost\n`, true},
	"doctor": {"", "", `(?s).*OpenSSL \d.*`, false},
	"c":      {"host.c", "{first comment} && ./host", `/CN=localhost\n`, true},
	"luajit": {"host.lua",
		"cp bindings/tlsd.lua . && TLSPLUGIN=bin/TlsPlugin.so luajit host.lua",
		`/CN=localhost\n`, true},
	"python": {"host.py",
		"cp bindings/tlsd.py . && TLSPLUGIN=bin/TlsPlugin.so python3 host.py",
		`/CN=localhost\n`, true},
	"node": {"host.mjs", "cp bindings/tlsd.mjs . && node host.mjs", `/CN=localhost\n`, true},
}

const socatAnswers = `\{"jsonrpc":"2\.0","id":1,"result":1\}
\{"jsonrpc":"2\.0","id":2,"result":0\}
\{"jsonrpc":"2\.0","id":3,"result":"/CN=localhost"\}
`

func TestReadmeBlocksRun(t *testing.T) {
	t.Parallel()
	ca, cert := localhost(t)
	d := testd.StartWith(t, testd.Options{Env: []string{"SSL_CERT_FILE=" + ca.File}})
	serving, refusing := httpsServer(t, cert), testkit.Port(t)

	var found []string
	var text string
	for _, file := range []string{"README.md", "docs/user.md", "docs/from-your-language.md"} {
		text += readFile(t, filepath.Join(root(t), file))
	}
	for _, m := range block.FindAllStringSubmatch(text, -1) {
		name, code := m[1], m[2]
		how, ok := blocks[name]
		if !ok {
			t.Errorf("the documents have a block %q, but the map blocks "+
				"does not say how to run it", name)
		}
		found = append(found, name)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := run(t, readmeBlock(t, d, how.file, how.run, code, serving))
			if e.status != 0 || e.stderr != "" ||
				!regexp.MustCompile(`^`+how.prints+`$`).MatchString(e.stdout) {
				t.Errorf("the block must succeed: status %d, stderr %q, printed "+
					"%q, want %s", e.status,
					e.stderr, e.stdout, how.prints)
			}
			if !how.connect {
				return
			}
			e = run(t, readmeBlock(t, d, how.file, how.run, code, refusing))
			if e.status == 0 || e.stdout != "" ||
				!strings.Contains(e.stderr, "tls.NewClient: ") ||
				!strings.Contains(e.stderr, "connection refused") {
				t.Errorf(
					"with a port that refuses connections: status %d, stdout "+
						"%q, stderr %q; want an error of tls.NewClient",
					e.status, e.stdout, e.stderr)
			}
		})
	}
	for name := range blocks {
		if !slices.Contains(found, name) {
			t.Errorf("the documents have lost their block %q", name)
		}
	}
}

// readmeBlock replaces the texts in a block, and returns the program that runs the block.
func readmeBlock(t *testing.T, d *testd.Daemon, file, command, code string, port int) program {
	t.Helper()
	dir := t.TempDir()
	testd.Plugin(t)
	testd.Exe(t, "tlsshim")
	for name, target := range map[string]string{"bin": filepath.Dir(testd.Domhost(t)),
		"cmd":      filepath.Join(root(t), "cmd"),
		"bindings": filepath.Join(root(t), "bindings")} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	code = strings.NewReplacer("example.com", "localhost", "/run/tlsd.sock",
		d.Socket).Replace(code)
	code = regexp.MustCompile(`\b443\b`).ReplaceAllString(code, strconv.Itoa(port))
	if file == "" {
		command = code
	} else {
		writeFile(t, filepath.Join(dir, file), code)
		first, _, _ := strings.Cut(code, "\n")
		first = strings.TrimSuffix(strings.TrimPrefix(first, "/* "), " */")
		command = strings.ReplaceAll(command, "{first comment}", first)
	}
	return program{name: "sh", args: []string{"-euc", command}, dir: dir, env: env(d)}
}
