package packaging

import (
	"debug/elf"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The plugin's binary interface is the list in packaging/abi.txt: one function a line, with the
// version of its symbol. A new function needs a new line. A change or removal of a line breaks
// existing programs; docs/upgrading.md says what to do in this case.
func TestTheBinaryInterfaceIsTheListedOne(t *testing.T) {
	t.Parallel()
	want := strings.Split(strings.TrimSpace(readFile(t, top+"/packaging/abi.txt")), "\n")
	var got []string
	versions := exported(t)
	for name, prototype := range declared(t) {
		got = append(got, versions[name]+" "+prototype)
		delete(versions, name)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the plugin's binary interface has changed: packaging/abi.txt has\n%s\n"+
			"the plugin has\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
	for name, version := range versions {
		t.Errorf("the plugin exports %s (%s), which tlsplugin.h does not declare",
			name, version)
	}
}

// The plugin has a SONAME. So a program that is linked against the plugin records the name
// TlsPlugin.so, and not the path.
func TestThePluginHasASONAME(t *testing.T) {
	t.Parallel()
	names, err := open(t, filepath.Join(bin, "TlsPlugin.so")).DynString(elf.DT_SONAME)
	if err != nil || !slices.Equal(names, []string{"TlsPlugin.so"}) {
		t.Errorf("the SONAME of the plugin is %v (%v), want TlsPlugin.so", names, err)
	}
}

// exported returns the functions that TlsPlugin.so exports, and the versions of their symbols.
func exported(t *testing.T) map[string]string {
	t.Helper()
	symbols, err := open(t, filepath.Join(bin, "TlsPlugin.so")).DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, s := range symbols {
		// a symbol in SHN_ABS is the name of a version, and not a function
		if s.Section != elf.SHN_UNDEF && s.Section != elf.SHN_ABS {
			found[s.Name] = s.Version
		}
	}
	return found
}

// declared returns the prototypes of the header's functions, without the parameters' names.
func declared(t *testing.T) map[string]string {
	t.Helper()
	text := succeed(t, exec.Command("cc", "-E", "-P", top+"/cmd/tlsshim/plugin/tlsplugin.h"))
	found := map[string]string{}
	for _, m := range regexp.MustCompile(`(\w+) (tls_\w+)\(([^)]*)\);`).FindAllStringSubmatch(
		text, -1) {
		var types []string
		for _, parameter := range strings.Split(m[3], ",") {
			types = append(types, typeOf(strings.Join(strings.Fields(parameter), " ")))
		}
		found[m[2]] = m[1] + " " + m[2] + "(" + strings.Join(types, ", ") + ")"
	}
	return found
}

// typeOf returns the type of a parameter, without the parameter's name.
func typeOf(parameter string) string {
	if parameter == "void" || !strings.Contains(parameter, " ") {
		return parameter
	}
	return strings.TrimSpace(regexp.MustCompile(`\w+$`).ReplaceAllString(parameter, ""))
}
