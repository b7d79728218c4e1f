package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The constant linked is a C program. The program exits with status 0 if it can call the plugin,
// and the plugin finds no daemon.
const linked = `#include <string.h>
#include <tlsplugin.h>
#if TLSPLUGIN_VERSION < 100
#error "the header has no version"
#endif
int main(void)
{
	char backend[16];
	return tls_Backend(backend, sizeof backend) != 4 || strcmp(backend, "stub") != 0;
}
`

// A C program that is compiled with the flags of tlsd.pc finds the installed library at run time.
func TestAProgramLinksWithTheFlagsOfPkgConfig(t *testing.T) {
	t.Parallel()
	prefix := t.TempDir()
	install(t, "install", "", "PREFIX="+prefix)
	flags := strings.Fields(described(t, filepath.Join(prefix, "lib/pkgconfig/tlsd.pc")))
	source, program := filepath.Join(prefix, "program.c"), filepath.Join(prefix, "program")
	if err := os.WriteFile(source, []byte(linked), 0o644); err != nil {
		t.Fatal(err)
	}
	succeed(t, exec.Command("cc", append([]string{"-o", program, source}, flags...)...))
	cmd := exec.Command(program)
	cmd.Env = []string{"TLSD_SOCKET=" + filepath.Join(prefix, "none"), "TLSD_AUTOSTART=0"}
	succeed(t, cmd)
}

// described returns the flags that pkg-config --cflags --libs prints for a .pc file.
func described(t *testing.T, path string) string {
	t.Helper()
	text := readFile(t, path)
	variables := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(\w+)=(.*)$`).FindAllStringSubmatch(text, -1) {
		variables[m[1]] = m[2]
	}
	var flags []string
	for _, m := range regexp.MustCompile(`(?m)^(?:Cflags|Libs): (.*)$`).FindAllStringSubmatch(
		text, -1) {
		flags = append(flags, os.Expand(m[1], func(name string) string {
			return variables[name]
		}))
	}
	return strings.Join(flags, " ")
}
