package openssl_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tlsd/openssl"
)

func TestLoadTellsPathAndVersion(t *testing.T) {
	t.Parallel()
	l := load(t)
	if !strings.HasPrefix(l.Version(), "OpenSSL ") {
		t.Errorf("Version %q, want one that begins with OpenSSL", l.Version())
	}
	t.Logf("%s, %s", l.Version(), l.Path())
	if st, err := os.Stat(l.Path()); err != nil || !st.Mode().IsRegular() ||
		!filepath.IsAbs(l.Path()) {
		t.Errorf("Path %q is not the absolute path of a file: %v", l.Path(), err)
	}
	again, err := openssl.Load(l.Path())
	if err != nil {
		t.Fatal(err)
	}
	if again != l {
		t.Error("a second Load of the same file returns another Library")
	}
}

func TestLoadErrorListsAllThatWasTried(t *testing.T) {
	t.Parallel()
	notELF := filepath.Join(t.TempDir(), "libtext.so")
	if err := os.WriteFile(notELF, []byte("this is text, and long enough to have the header "+
		"of an ELF file, if it were one"), 0o600); err != nil {
		t.Fatal(err)
	}
	names := []string{"libssl-that-is-missing.so.4", notELF, "/nonexistent/libssl.so.3"}
	_, err := openssl.LoadFirst(names)
	var le *openssl.LoadError
	if !errors.As(err, &le) || len(le.Tried) != len(names) {
		t.Fatalf("error %v, want a LoadError with %d attempts", err, len(names))
	}
	for i, why := range []string{"cannot open shared object file", "invalid ELF header",
		"cannot open shared object file"} {
		if le.Tried[i].Name != names[i] || !strings.Contains(le.Tried[i].Err.Error(), why) {
			t.Errorf("attempt %d: %q: %v, want %q: …%s", i, le.Tried[i].Name,
				le.Tried[i].Err, names[i], why)
		}
		if strings.Count(err.Error(), names[i]) != 1 {
			t.Errorf("error %q should name %s once", err, names[i])
		}
	}
	if _, err := openssl.Load("/nonexistent/libssl.so"); !errors.As(err, &le) ||
		len(le.Tried) != 1 {
		t.Errorf("Load of a path: %v, want a LoadError with one attempt", err)
	}
}

func TestLoadGoesOnToTheNextCandidate(t *testing.T) {
	t.Parallel()
	want := load(t)
	l, err := openssl.LoadFirst([]string{"libssl-that-is-missing.so.4", want.Path()})
	if err != nil || l != want {
		t.Errorf("LoadFirst returns %v, %v, want the Library of the second name", l, err)
	}
}

// compile makes a shared library of C code.
func compile(t *testing.T, lib, code string, flags ...string) {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler to make a fake library with")
	}
	src := write(t, lib+".c", []byte(code))
	args := append([]string{"-shared", "-fPIC", "-fno-builtin", "-o", lib, src}, flags...)
	if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		t.Fatalf("the C compiler: %v: %s", err, out)
	}
}

// fakeLibrary makes a library that has only SSL_read and the functions about the version.
func fakeLibrary(t *testing.T, num, text string) string {
	t.Helper()
	lib := filepath.Join(t.TempDir(), "libssl.so.3")
	compile(t, lib, "unsigned long OpenSSL_version_num(void) { return "+num+"UL; }\n"+
		"const char *OpenSSL_version(int t) { (void)t; return \""+text+"\"; }\n"+
		"int SSL_read(void *s, void *b, int n) { (void)s; (void)b; return n; }\n")
	return lib
}

func TestMissingSymbolsAreAllNamedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := openssl.Load(fakeLibrary(t, "0x30000010", "OpenSSL 3.0.1 fake"))
	if err == nil {
		t.Fatal("a library without symbols was loaded")
	}
	for _, want := range []string{
		"OpenSSL 3.0.1 fake: symbols are missing", "OPENSSL_init_ssl", "SSL_CTX_new",
		"SSL_write", "SSL_get1_peer_certificate or SSL_get_peer_certificate",
		"PEM_read_bio_X509_AUX",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	// The library has SSL_read, and ERR_get_error_all is optional. So neither is missing.
	for _, not := range []string{"SSL_read,", "ERR_get_error_all"} {
		if strings.Contains(err.Error(), not) {
			t.Errorf("error %q names %q, which is not missing", err, not)
		}
	}
}

func TestUntestedVersionsAreRefusedBeforeAnythingIsCalled(t *testing.T) {
	t.Parallel()
	for _, v := range []struct{ num, text string }{
		{"0x50000000", "OpenSSL 5.0.0 1 Jan 2030"},
		{"0x101000cf", "OpenSSL 1.1.0l  10 Sep 2019"},
		{"0x20000000", "LibreSSL 3.8.2"},
		{"0x1010107f", "BoringSSL"},
	} {
		_, err := openssl.Load(fakeLibrary(t, v.num, v.text))
		if err == nil || !strings.Contains(err.Error(), v.text) ||
			strings.Contains(err.Error(), "missing") {
			t.Errorf("Load of %q: %v, want an error that names this version and no "+
				"missing symbols", v.text, err)
		}
	}
	for _, v := range []struct {
		num   uint64
		text  string
		major int
	}{
		{0x1010100f, "OpenSSL 1.1.1  11 Sep 2018", 1},
		{0x1010117f, "OpenSSL 1.1.1w  11 Sep 2023", 1},
		{0x30000130, "OpenSSL 3.0.19 27 Jan 2026", 3},
		{0x30600000, "OpenSSL 3.6.0", 3},
		{0x40000000, "OpenSSL 4.0.0 14 Apr 2026", 4},
	} {
		if major, err := openssl.CheckVersion(v.num, v.text); err != nil ||
			major != v.major {
			t.Errorf("CheckVersion of %q: %d, %v, want %d", v.text, major, err, v.major)
		}
	}
}

func TestSearchListPrefersTheNewest(t *testing.T) {
	t.Parallel()
	for goos, want := range map[string][]string{
		"linux":  {"libssl.so.4", "libssl.so.3", "libssl.so.1.1"},
		"darwin": {"libssl.4.dylib", "libssl.3.dylib", "libssl.1.1.dylib"},
	} {
		if got := openssl.SearchList(goos); !slices.Equal(got[:3], want) {
			t.Errorf("the names for %s are %q, want %q first", goos, got, want)
		}
	}
}

// The layout of an error code changed in 3.0: ERR_PACK in err.h.
func TestErrorCodesAreTakenApartByVersion(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		code             uint64
		major, lib, want int
	}{
		// 1.1.1: error:1416F086:SSL routines:tls_process_server_certificate:certificate
		// verify failed
		{0x1416F086, 1, 20, 134},
		// 3.0: error:0A000086:SSL routines::certificate verify failed
		{0x0A000086, 3, 20, 134},
		// 3.0: error:80000002:system library::No such file or directory
		{0x80000002, 3, 2, 2},
	} {
		if lib, reason := openssl.SplitCode(tc.code, tc.major); lib != tc.lib ||
			reason != tc.want {
			t.Errorf("the code %#x has the library %d and reason %d, want %d and %d",
				tc.code, lib, reason, tc.lib, tc.want)
		}
	}
}
