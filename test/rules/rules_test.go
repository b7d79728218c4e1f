// Package rules tests rules for the whole source tree.
package rules

import (
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Imports run one way: cmd -> rpc -> session -> openssl -> purego.
var forbidden = []struct {
	pkg     string // a package; with /... at its end, also all packages below it
	mustNot string // prefix of an import path
	direct  bool   // the rule is only about direct imports
	because string
}{
	{"tlsd/openssl/...", "tlsd/session", false, "openssl is the lowest layer"},
	{"tlsd/openssl/...", "tlsd/rpc", false, "openssl is the lowest layer"},
	{"tlsd/openssl/...", "go.uber.org/zap", false, "lower layers return errors and do not log"},
	{"tlsd/session/...", "tlsd/rpc", false, "a session does not know how its calls travel"},
	{"tlsd/session/...", "encoding/json", true, "JSON belongs to rpc"},
	{"tlsd/session/...", "go.uber.org/zap", false, "lower layers return errors and do not log"},
	{"tlsd/session/...", "github.com/ebitengine/purego", true, "only openssl calls into C"},
	{"tlsd/rpc/...", "tlsd/cmd", false, "imports run one way"},
	{"tlsd/rpc/...", "github.com/ebitengine/purego", true, "only openssl calls into C"},
	{"tlsd/rpc/...", "go.uber.org/zap", false, "lower layers return errors and do not log"},
	{"tlsd/rpc/wire", "tlsd/session", false, "clients import wire, and have no session code"},
	{"tlsd/rpc/client", "tlsd/session", false, "a client has no session of its own"},
	{"tlsd/rpc/client", "tlsd/openssl", false, "a client never loads libssl"},
	{"tlsd/rpc/client", "github.com/ebitengine/purego", false, "a client never loads libssl"},
	{"tlsd/cmd/tlsshim", "tlsd/session", false, "the shim only forwards"},
	{"tlsd/cmd/tlsshim", "tlsd/openssl", false, "the shim never loads libssl"},
	{"tlsd/cmd/tlsshim", "github.com/ebitengine/purego", false, "the shim never loads libssl"},
	{"tlsd/cmd/tlsd", "github.com/ebitengine/purego", true, "only openssl calls into C"},
	{"tlsd/cmd/tlsd", "github.com/elastic/go-seccomp-bpf", false,
		"its tables of system calls would be a tenth of an idle worker's memory"},
	{"tlsd/cmd/tlsd", "regexp", false, "its tables would be in each idle worker's memory"},
	{"tlsd/internal/supervisor", "tlsd/session", false,
		"the supervisor is never in the data path"},
	{"tlsd/internal/supervisor", "tlsd/openssl", false, "the supervisor never loads libssl"},
	{"tlsd/internal/supervisor", "github.com/ebitengine/purego", false,
		"the supervisor never loads libssl"},
	{"tlsd/internal/handoff", "tlsd/session", false, "the supervisor imports handoff"},
	{"tlsd/internal/handoff", "tlsd/openssl", false, "the supervisor imports handoff"},
	{"tlsd/internal/kind", "tlsd/", false, "every layer imports kind"},
}

func TestImportsRunOneWay(t *testing.T) {
	t.Parallel()
	direct := list(t, "{{.ImportPath}}: {{join .Imports \" \"}}")
	all := list(t, "{{.ImportPath}}: {{join .Deps \" \"}}")
	known := slices.Concat(slices.Collect(maps.Keys(all)), slices.Concat(
		slices.Collect(maps.Values(all))...))
	for _, rule := range forbidden {
		imports := all
		if rule.direct {
			imports = direct
		}
		matched := false
		if !slices.ContainsFunc(known, func(p string) bool {
			return strings.HasPrefix(p, rule.mustNot)
		}) {
			t.Errorf("there is no package %s: the rule checks nothing", rule.mustNot)
		}
		for pkg, paths := range imports {
			below, ok := strings.CutSuffix(rule.pkg, "/...")
			if pkg != rule.pkg && !(ok &&
				(pkg == below || strings.HasPrefix(pkg, below+"/"))) {
				continue
			}
			matched = true
			for _, p := range paths {
				if strings.HasPrefix(p, rule.mustNot) && p != pkg {
					t.Errorf("%s must not import %s: %s", pkg, p, rule.because)
				}
			}
		}
		if !matched {
			t.Errorf("no package matches %s: the rule checks nothing", rule.pkg)
		}
	}
}

// list runs go list for all packages of the module. The format gives a line "package: items". list
// returns the items of each package.
func list(t *testing.T, format string) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-f", format, "tlsd/...")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	var says strings.Builder
	cmd.Stderr = &says
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, says.String())
	}
	m := map[string][]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		pkg, imports, _ := strings.Cut(line, ": ")
		m[pkg] = strings.Fields(imports)
	}
	return m
}
