package main

import (
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// Every function has a wrapper. Without orders, faultssl behaves like the library to which it
// forwards.

func TestMain(m *testing.M) { testd.Main(m) }

// built is the library, which all tests share.
var built struct {
	once      sync.Once
	image     []byte
	functions []function
	err       error
}

// library builds faultssl into a folder that every user can enter, with these orders beside it.
func library(t *testing.T, orders string) (file string, functions []function) {
	t.Helper()
	testkit.Tool(t, "cc")
	built.once.Do(func() {
		file := filepath.Join(t.TempDir(), "faultssl.so")
		if built.functions, built.err = build(file); built.err == nil {
			built.image, built.err = os.ReadFile(file)
		}
	})
	if errors.Is(built.err, errNoLibrary) {
		testkit.Missing(t, "%v", built.err)
	}
	testkit.Must(t, built.err)
	file = filepath.Join(testkit.Dir(t), "faultssl.so")
	testkit.Must(t, os.WriteFile(file, built.image, 0o644))
	testkit.Must(t, os.WriteFile(file+".orders", []byte(orders), 0o644))
	return file, built.functions
}

// libc are the names in the table of symbols that are not OpenSSL's.
var libc = []string{"__errno_location", "__error"}

// table reads the table of symbols of package openssl. A row has the names of a function in several
// releases of OpenSSL. The keys of optional are the first names of the rows.
func table(t *testing.T) (rows [][]string, optional map[string]bool) {
	t.Helper()
	source, err := os.ReadFile("../../openssl/symbols.go")
	testkit.Must(t, err)
	optional = map[string]bool{}
	for _, m := range regexp.MustCompile(
		`(?m)^\s*\{"([\w ]+)", &s\.\w+,\s+(\w+)\}`).FindAllStringSubmatch(string(source),
		-1) {
		names := strings.Fields(m[1])
		if slices.Contains(libc, names[0]) {
			continue
		}
		rows = append(rows, names)
		optional[names[0]] = m[2] == "optional"
	}
	if len(rows) < 60 {
		t.Fatalf("found only %d rows in the table of symbols; want at least 60", len(rows))
	}
	return rows, optional
}

func TestEveryFunctionThatIsCalledHasAWrapper(t *testing.T) {
	t.Parallel()
	file, functions := library(t, "")
	lib, err := elf.Open(file)
	testkit.Must(t, err)
	defer lib.Close()
	exported, err := lib.DynamicSymbols()
	testkit.Must(t, err)
	wrapped := map[string]bool{}
	for _, s := range exported {
		if s.Section == elf.SHN_UNDEF {
			continue
		}
		// If a wrapper had another version, or none, libssl's own calls of libcrypto would
		// reach the wrapper, too.
		if s.Version != "FAULTSSL" {
			t.Errorf("%s has the version %q; want FAULTSSL", s.Name, s.Version)
		}
		wrapped[s.Name] = true
	}
	rows, optional := table(t)
	named := map[string]bool{}
	for _, names := range rows {
		any := optional[names[0]]
		for _, name := range names {
			any = any || wrapped[name]
			named[name] = true
		}
		if !any {
			t.Errorf("%s has no wrapper", strings.Join(names, " or "))
		}
	}
	for _, f := range functions {
		if !wrapped[f.name] || !named[f.name] {
			t.Errorf("the function %s: exported by the library: %v, in the table of "+
				"symbols: %v; want both", f.name,
				wrapped[f.name], named[f.name])
		}
	}
}

// These tests cannot work with faultssl. They are about the file names of libssl and libcrypto, and
// faultssl has all symbols in one file of its own.
const aboutFiles = "^(TestTheLibcryptoInUseIsTold|TestALibsslWithAForeignLibcryptoIsRefused)$"

func TestWithoutOrdersFaultsslBehavesLikeLibssl(t *testing.T) {
	t.Parallel()
	if !*long {
		t.Skip("runs other packages' tests again; needs the flag -long")
	}
	file, _ := library(t, "# no orders, but a file that is read at every call\n")
	for _, suite := range [][]string{
		{"tlsd/openssl", "-skip", aboutFiles},
		{"tlsd/test/conformance", "-run",
			"^Test(RequestAndReply|MuchDataBothWays|CertificatesAreJudged|" +
				"ARefusedCertificateIsExplained|ACutConnectionIsAnError|" +
				"AResetConnectionIsAnError|DataBeforeACutIsNotLost|" +
				"PeersWithTLS12Only|BadFiles|NewClientsUseTheLatestCaBundle|" +
				"AnAcceptMeetsABadClient)$"},
	} {
		t.Run(strings.ReplaceAll(suite[0], "/", "."), func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), "go",
				append([]string{"test", "-count=1", "-timeout=20m", "-v"},
					suite...)...)
			cmd.Env = append(os.Environ(), "TLSD_TEST_LIBSSL="+file)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("the tests must pass with faultssl: %v\n%s", err, out)
			}
			if passed := strings.Count(string(out), "--- PASS: "); passed < 30 {
				t.Errorf("only %d tests have passed; want at least 30\n%s", passed,
					out)
			}
		})
	}
}
