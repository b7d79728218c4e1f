package plugin

import (
	"debug/elf"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tlsd/internal/testkit"
)

// TlsPlugin.so exports only the functions of tlsplugin.h, needs only libc, and compiles without a
// warning.

// functions returns the names of the functions that tlsplugin.h declares.
func functions(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command(testkit.Tool(t, "gcc"), "-E", "-P",
		sources+"/tlsplugin.h").Output()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`int64_t (tls_\w+)\(`).FindAllStringSubmatch(
		string(out), -1) {
		names = append(names, m[1])
	}
	if len(names) != 28 {
		t.Fatalf("tlsplugin.h declares %d functions, want 28: %v", len(names), names)
	}
	return names
}

func TestTheLibraryExportsItsFunctionsAndNothingElse(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(testkit.Tool(t, "nm"), "-D", "--defined-only", "--format=posix",
		plain.library(t)).Output()
	if err != nil {
		t.Fatal(err)
	}
	var exported []string
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(line, " ")
		exported = append(exported, name)
	}
	want := functions(t)
	slices.Sort(want)
	slices.Sort(exported)
	if !slices.Equal(exported, want) {
		t.Errorf("the library exports %v; want %v", exported, want)
	}
}

func TestTheLibraryNeedsLibcOnly(t *testing.T) {
	t.Parallel()
	f, err := elf.Open(plain.library(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	libs, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(libs, []string{"libc.so.6"}) {
		t.Errorf("the library needs %v; want libc.so.6 only", libs)
	}
	// The library runs in a host that may have threads and any locale. So it must not call
	// functions that are unsafe there, or that change the whole process.
	unsafe := []string{"strerror", "getenv", "sprintf", "strtok", "localtime", "gmtime",
		"readdir", "setlocale", "signal", "pthread_create", "fork", "system"}
	symbols, err := f.ImportedSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if slices.Contains(unsafe, s.Name) {
			t.Errorf("the library calls %s, which is unsafe in a host", s.Name)
		}
	}
	if len(symbols) < 30 {
		t.Errorf("the library imports %d symbols; want at least 30, otherwise the list "+
			"that this test checks is not complete", len(symbols))
	}
	// If a library wants an executable stack, the whole host gets one. A library without a
	// program header PT_GNU_STACK wants one, too (execstack(8)).
	stack := slices.IndexFunc(f.Progs, func(p *elf.Prog) bool {
		return p.Type == elf.PT_GNU_STACK
	})
	if stack < 0 || f.Progs[stack].Flags&elf.PF_X != 0 {
		t.Error("the library wants an executable stack")
	}
}

func TestTheSourcesAreCleanForEachCompiler(t *testing.T) {
	t.Parallel()
	for _, f := range []*flavour{plain, {name: "clang", cc: "clang", flags: []string{"-O2"}},
		musl,
		{name: "fortified", cc: "gcc", flags: []string{"-O2", "-D_FORTIFY_SOURCE=2",
			"-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wvla",
			"-Wformat=2"}},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.library(t)
		})
	}
}

func TestTheHeaderServesCAndCPlusPlus(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-x", "c", "-std=c99"}, {"-x", "c", "-std=c11"}, {"-x", "c++", "-std=c++11"},
	} {
		testkit.Tool(t, "gcc")
		args = append(args, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only",
			"-include", filepath.Join(sources, "tlsplugin.h"), "/dev/null")
		if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
			t.Errorf("gcc %v does not accept the header: %v\n%s", args, err, out)
		}
	}
}

// The library also loads into a host that uses musl instead of glibc. There, too, calls give their
// results and their errors, though a thread has only 128 KiB of stack.
func TestTheLibraryWorksOnMusl(t *testing.T) {
	t.Parallel()
	d := newStandIn(t)
	h := startHostWith(t, hostOptions{flavour: musl, env: []string{d.env()}})
	call := h.start("NewClient", "h", 1)
	p, _ := d.session()
	p.result(p.expect("tls.NewClient", `["h",1]`), "1")
	call.gives(1, "")
	read := h.start("Subject", 1)
	id := p.expect("tls.PeerCertSubject", "[1]")
	h.send("fork").gives(0, "")
	h.send("Subject", 1).fails("tls.PeerCertSubject: handle 1: no such handle")
	h.send("exit")
	h.child().gives(0, "")
	p.result(id, `"data"`)
	read.reads("data")
	p.conn.Close()
	h.start("Handshake", 1).fails("tls.Handshake: handle 1: lost: tlsd")
	d.ln.Close() // removes the socket
	h.start("NewClient", "h", 1).fails("tls.NewClient: backend: no tlsd: " + d.path +
		": No such file or directory")
}
