package openssl_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tlsd/openssl"
)

// What the dynamic linker does depends on the environment that a process is started with. So these
// tests start this program again, as one that only loads a library.

// loadOnly names the library for the child.
const loadOnly = "TLSD_TEST_LOAD_ONLY"

// loadOnlyMain is all that the child does.
func loadOnlyMain(path string) {
	if l, err := openssl.Load(path); err != nil {
		fmt.Println("refused:", err)
	} else {
		fmt.Printf("loaded: %s with %s\n", l.Path(), l.CryptoPath())
	}
}

// loadInChild loads a library in a process with further variables, and gives what it says.
func loadInChild(t *testing.T, path string, env ...string) string {
	t.Helper()
	cmd := exec.CommandContext(bounded(t), os.Args[0])
	cmd.Env = append(append(os.Environ(), loadOnly+"="+path), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// copyPair copies the libssl in use and its libcrypto to a folder of their own, under their sonames, and gives the libssl's path.
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
		t.Errorf("CryptoPath is %q", l.CryptoPath())
	}
}

func TestALibsslWithAForeignLibcryptoIsRefused(t *testing.T) {
	t.Parallel()
	ssl := copyPair(t)
	dir := filepath.Dir(ssl)
	foreign := load(t).CryptoPath()
	own := filepath.Join(dir, filepath.Base(foreign))

	// By its path alone, libssl gets the system's libcrypto, although its own is beside it.
	out := loadInChild(t, ssl)
	for _, want := range []string{"refused: ", ssl + " has got a foreign libcrypto, " + foreign, own, "LD_LIBRARY_PATH=" + dir} {
		if !strings.Contains(out, want) {
			t.Errorf("loaded by its path: want %q in\n%s", want, out)
		}
	}
	// As the error advises:
	want := "loaded: " + ssl + " with " + own
	if out := loadInChild(t, ssl, "LD_LIBRARY_PATH="+dir); !strings.Contains(out, want) {
		t.Errorf("with LD_LIBRARY_PATH: want %q in\n%s", want, out)
	}
	// The other way round: the system's libssl, and a libcrypto of that name from elsewhere.
	out = loadInChild(t, load(t).Path(), "LD_PRELOAD="+own)
	if want := load(t).Path() + " has got a foreign libcrypto, " + own; !strings.Contains(out, want) {
		t.Errorf("with LD_PRELOAD: want %q in\n%s", want, out)
	}
	// Without a libcrypto beside it there is nothing to prefer.
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	if out, want := loadInChild(t, ssl), "loaded: "+ssl+" with "+foreign; !strings.Contains(out, want) {
		t.Errorf("alone in its folder: want %q in\n%s", want, out)
	}
}

// A libssl of one major version with a libcrypto of another, which the linker lets pass if
// they have no symbol versions.
func TestALibsslOfAnotherMajorVersionIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	crypto := filepath.Join(dir, "libcrypto.so.3")
	compile(t, crypto, "unsigned long OpenSSL_version_num(void) { return 0x30000010UL; }\n"+
		"const char *OpenSSL_version(int t) { (void)t; return \"OpenSSL 3.0.1 fake\"; }\n")
	// All that the package looks up: a function that does nothing.
	var code strings.Builder
	for _, name := range openssl.SymbolNames() {
		code.WriteString("long " + name + "(void) { return 0; }\n")
	}
	ssl := filepath.Join(dir, "libssl.so.1.1")
	compile(t, ssl, code.String(), "-Wl,-soname,libssl.so.1.1", "-Wl,-rpath,"+dir, "-Wl,--no-as-needed", crypto)
	_, err := openssl.Load(ssl)
	for _, want := range []string{"libssl of OpenSSL 1.x", "OpenSSL 3.0.1 fake", ssl, crypto, "must be of one build"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want to read %q", err, want)
		}
	}
}

// Something in front of libcrypto, of whatever name, that takes libssl's calls.
func TestALibsslThatReportsItsErrorsElsewhereIsRefused(t *testing.T) {
	t.Parallel()
	front := filepath.Join(t.TempDir(), "front.so")
	compile(t, front, "void ERR_put_error(void) {}\n"+ // 1.1.1
		"void ERR_new(void) {}\nvoid ERR_set_debug(void) {}\nvoid ERR_set_error(void) {}\nvoid ERR_vset_error(void) {}\n")
	out := loadInChild(t, load(t).Path(), "LD_PRELOAD="+front)
	for _, want := range []string{"refused: ", "does not report its errors to " + load(t).CryptoPath(), "LD_PRELOAD"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
}

// A variant for better processors lies in a folder below, and belongs to the libssl above.
func TestVariantsForProcessorsAreNotForeign(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"/opt/x/lib/libcrypto.so.3":                         "/opt/x/lib",
		"/opt/x/lib/glibc-hwcaps/x86-64-v3/libcrypto.so.3":  "/opt/x/lib",
		"/opt/x/lib/glibc-hwcaps-of-mine/v3/libcrypto.so.3": "/opt/x/lib/glibc-hwcaps-of-mine/v3",
		"/opt/y/lib/glibc-hwcaps/x86-64-v3/libcrypto.so.3":  "/opt/y/lib",
	} {
		if got := openssl.Home(file); got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
	}
}
