package openssl_test

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tlsd/openssl"
)

// The dynamic linker's choice depends on the environment at the start of a process. So these tests
// start the test program again, and the new process only loads a library.

// loadOnly is an environment variable. It tells the child the path of the library.
const loadOnly = "TLSD_TEST_LOAD_ONLY"

// loadOnlyMain is the whole program of the child.
func loadOnlyMain(path string) {
	if l, err := openssl.Load(path); err != nil {
		fmt.Println("refused:", err)
	} else {
		fmt.Printf("loaded: %s with %s\n", l.Path(), l.CryptoPath())
	}
}

// loadInChild loads a library in a process with further variables, and returns the output.
func loadInChild(t *testing.T, path string, env ...string) string {
	t.Helper()
	cmd := exec.CommandContext(bounded(t), os.Args[0])
	cmd.Env = append(append(os.Environ(), loadOnly+"="+path), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the process that loads the library: %v\n%s", err, out)
	}
	return string(out)
}

// copyPair copies the libssl in use and its libcrypto to a folder of their own, under their
// sonames. It returns the path of the libssl.
func copyPair(t *testing.T) string {
	t.Helper()
	l, dir := load(t), t.TempDir()
	if l.CryptoPath() == "" {
		t.Skip("this system does not tell where a library was loaded from")
	}
	for _, file := range []string{l.Path(), l.CryptoPath()} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, filepath.Base(file)), data)
	}
	return filepath.Join(dir, filepath.Base(l.Path()))
}

func TestTheLibcryptoInUseIsTold(t *testing.T) {
	t.Parallel()
	l := load(t)
	if got := filepath.Base(l.CryptoPath()); !strings.HasPrefix(got, "libcrypto.so.") {
		t.Errorf("CryptoPath is %q, want a file libcrypto.so.*", l.CryptoPath())
	}
	if l.Pair() == "" || strings.HasPrefix(l.Pair(), "not compared") {
		t.Errorf("Pair is %q, want a text that says that libssl and libcrypto agree",
			l.Pair())
	}
}

func TestALibsslWithAForeignLibcryptoIsRefused(t *testing.T) {
	t.Parallel()
	ssl := copyPair(t)
	dir := filepath.Dir(ssl)
	foreign := load(t).CryptoPath()
	own := filepath.Join(dir, filepath.Base(foreign))

	// A libssl that is loaded by its path alone gets the system's libcrypto, although a
	// libcrypto is beside the libssl.
	out := loadInChild(t, ssl)
	for _, want := range []string{"refused: ", ssl + " has got a foreign libcrypto, " + foreign,
		own, "LD_LIBRARY_PATH=" + dir} {
		if !strings.Contains(out, want) {
			t.Errorf("loaded by its path: want %q in\n%s", want, out)
		}
	}
	// As the error advises:
	want := "loaded: " + ssl + " with " + own
	if out := loadInChild(t, ssl, "LD_LIBRARY_PATH="+dir); !strings.Contains(out, want) {
		t.Errorf("with LD_LIBRARY_PATH: want %q in\n%s", want, out)
	}
	// The reverse: the system's libssl, and a libcrypto of the same name from elsewhere.
	out = loadInChild(t, load(t).Path(), "LD_PRELOAD="+own)
	if want := load(t).Path() + " has got a foreign libcrypto, " +
		own; !strings.Contains(out, want) {
		t.Errorf("with LD_PRELOAD: want %q in\n%s", want, out)
	}
	// If no libcrypto is beside libssl, the system's is accepted.
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	if out, want := loadInChild(t, ssl),
		"loaded: "+ssl+" with "+foreign; !strings.Contains(out, want) {
		t.Errorf("alone in its folder: want %q in\n%s", want, out)
	}
}

// fakePair makes a libssl and a libcrypto that do nothing, and returns the path of the libssl. The
// linker accepts the two as a pair.
func fakePair(t *testing.T, soname, symbolVersion, cryptoVersion string) (ssl string) {
	t.Helper()
	dir := t.TempDir()
	crypto := filepath.Join(dir, "libcrypto.so.3")
	compile(t, crypto, "unsigned long OpenSSL_version_num(void) { return 0x30000010UL; }\n"+
		"const char *OpenSSL_version(int t) { (void)t; return \""+cryptoVersion+"\"; }\n")
	// The libssl has each function that the package looks up. These functions do nothing.
	var code strings.Builder
	for _, name := range openssl.SymbolNames() {
		code.WriteString("long " + name + "(void) { return 0; }\n")
	}
	flags := []string{"-Wl,-soname," + soname, "-Wl,-rpath," + dir,
		"-Wl,--no-as-needed", crypto}
	if symbolVersion != "" {
		script := write(t, filepath.Join(dir, "versions"),
			[]byte(symbolVersion+" { global: *; };\n"))
		flags = append(flags, "-Wl,--version-script="+script)
	}
	ssl = filepath.Join(dir, soname)
	compile(t, ssl, code.String(), flags...)
	return ssl
}

func TestALibsslOfAnotherVersionIsRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ soname, symbols, crypto, says string }{
		"another major version": {"libssl.so.1.1", "", "OpenSSL 3.0.1 fake",
			"(libssl.so.1.1) is a libssl of OpenSSL 1.x"},
		"3.0 with libcrypto of 3.5": {"libssl.so.3", "OPENSSL_3.0.3", "OpenSSL 3.5.9 fake",
			"is a libssl of OpenSSL 3.0"},
		"3.5 with libcrypto of 3.0": {"libssl.so.3", "OPENSSL_3.5.0", "OpenSSL 3.0.19 fake",
			"is a libssl of OpenSSL 3.5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ssl := fakePair(t, tc.soname, tc.symbols, tc.crypto)
			_, err := openssl.Load(ssl)
			for _, want := range []string{ssl + " " + tc.says, "but its libcrypto, " +
				filepath.Dir(ssl) + "/libcrypto.so.3, is " + tc.crypto,
				"must be of one build"} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("Load returns %v, want an error with %q", err,
						want)
				}
			}
		})
	}
}

// The versions of libssl's symbols and the version of libcrypto decide whether the two are a pair.
// The test makes libraries with the versions of its table. If make libssl-matrix has fetched
// libraries, the test compares them too.
func TestPairsAreComparedByTheirVersions(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		symbols, version string
		finding          string // "" if the pair must be refused
	}{
		{"OPENSSL_3.0.0", "OpenSSL 3.0.19 27 Jan 2026", "libssl's newest symbols are of " +
			"OpenSSL 3.0, as they must be"},
		// 3.1 added no symbols
		{"OPENSSL_3.0.3", "OpenSSL 3.1.8 11 Feb 2025", "libssl's newest symbols are of " +
			"OpenSSL 3.0"},
		// a release that nobody knows yet
		{"OPENSSL_3.6.0", "OpenSSL 3.9.0 1 Jan 2028", "libssl's newest symbols are of " +
			"OpenSSL 3.6"},
		{"OPENSSL_3.9.0", "OpenSSL 3.9.0 1 Jan 2028", "libssl's newest symbols are of " +
			"OpenSSL 3.9"},
		{"", "OpenSSL 3.0.19 27 Jan 2026", "not compared: libssl has no symbol versions"},
		{"VENDOR_9.9.9", "OpenSSL 3.0.19 27 Jan 2026", "not compared: libssl has no " +
			"symbol versions"},
		{"OPENSSL_3.0.3", "OpenSSL 3.2.6", ""},
		{"OPENSSL_3.2.0", "OpenSSL 3.1.8", ""},
		{"OPENSSL_3.5.0", "OpenSSL 3.6.5", ""},
		{"OPENSSL_3.9.1", "OpenSSL 3.8.0", ""},
	} {
		file := fakePair(t, "libssl.so.3", tc.symbols, tc.version)
		finding, err := openssl.ComparePair(file, tc.version)
		if (err == nil) != (tc.finding != "") || !strings.HasPrefix(finding, tc.finding) {
			t.Errorf("libssl with the symbols %q, libcrypto %q: the finding is %q, "+
				"%v; want %q (empty: an error)", tc.symbols, tc.version, finding,
				err, tc.finding)
		}
	}

	// for each libssl that has been fetched: the version of the libcrypto beside it
	versions := map[string]string{}
	for release, name := range map[string]string{"1.1.1": "so.1.1", "3.0": "so.3",
		"3.5": "so.3", "3.6": "so.3", "4.0": "so.4"} {
		found, err := filepath.Glob(filepath.Join(fetched(), release,
			"root/usr/lib/*/libssl."+name))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range found {
			data, err := os.ReadFile(filepath.Join(filepath.Dir(file),
				"libcrypto."+name))
			if err != nil {
				t.Fatal(err)
			}
			text := regexp.MustCompile(
				`\x00(OpenSSL \d[^\x00]* 20\d\d)\x00`).FindSubmatch(data)
			if text == nil {
				t.Fatalf("the libcrypto beside %s has no version", file)
			}
			versions[file] = string(text[1])
		}
	}
	for file, own := range versions {
		for _, version := range versions {
			if finding, err := openssl.ComparePair(file,
				version); (err == nil) != (version == own) ||
				strings.HasPrefix(finding, "not compared") {
				t.Errorf("%s with a libcrypto of %s: %q, %v; want "+
					"the pair accepted: %t", file, version, finding, err,
					version == own)
			}
		}
	}
	t.Logf("%d libraries of the matrix are here", len(versions))
}

// fetched is the folder in which make libssl-matrix keeps the fetched libraries.
func fetched() string {
	cache, _ := os.UserCacheDir()
	return cmp.Or(os.Getenv("TLSD_LIBSSL_CACHE"), filepath.Join(cache, "tlsd/libssl"))
}

// With LD_PRELOAD a library of any name can get the calls that libssl makes to libcrypto. Then the
// errors of libssl are lost, so this libssl is refused.
func TestALibsslThatReportsItsErrorsElsewhereIsRefused(t *testing.T) {
	t.Parallel()
	front := filepath.Join(t.TempDir(), "front.so")
	compile(t, front, "void ERR_put_error(void) {}\n"+ // 1.1.1
		"void ERR_new(void) {}\nvoid ERR_set_debug(void) {}\nvoid ERR_set_error(void) "+
		"{}\nvoid ERR_vset_error(void) {}\n")
	out := loadInChild(t, load(t).Path(), "LD_PRELOAD="+front)
	for _, want := range []string{"refused: ", "does not report its errors to " +
		load(t).CryptoPath(), "LD_PRELOAD"} {
		if !strings.Contains(out, want) {
			t.Errorf("with LD_PRELOAD: want %q in\n%s", want, out)
		}
	}
}

// A libcrypto for newer processors is in a folder below that of libssl, and belongs to this libssl.
func TestVariantsForProcessorsAreNotForeign(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"/opt/x/lib/libcrypto.so.3":                        "/opt/x/lib",
		"/opt/x/lib/glibc-hwcaps/x86-64-v3/libcrypto.so.3": "/opt/x/lib",
		"/opt/x/lib/glibc-hwcaps-mine/v3/libcrypto.so.3":   "/opt/x/lib/glibc-hwcaps-mine/v3",
		"/opt/y/lib/glibc-hwcaps/x86-64-v3/libcrypto.so.3": "/opt/y/lib",
	} {
		if got := openssl.Home(file); got != want {
			t.Errorf("the folder of %s is %s, want %s", file, got, want)
		}
	}
}
