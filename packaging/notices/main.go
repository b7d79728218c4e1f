// Notices prints the licences of the code that is linked into the programs: of Go, and of each
// module. A .deb or .rpm of the programs must contain these licences.
//
//	go run ./packaging/notices >NOTICES
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// programs are the Go packages of tlsd and tlsshim.
var programs = []string{"./cmd/tlsd", "./cmd/tlsshim"}

type module struct {
	Path, Version, Dir string
	Main               bool
}

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "notices:", err)
		os.Exit(1)
	}
}

func run(w io.Writer) error {
	modules, err := linked()
	if err != nil {
		return err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return err
	}
	modules = append([]module{{Path: "Go", Dir: strings.TrimSpace(string(root))}}, modules...)
	fmt.Fprintln(w, "tlsd and tlsshim contain parts of the following. "+
		"OpenSSL is not among them: tlsd loads the")
	fmt.Fprintln(w, "machine's own when it runs.")
	for _, m := range modules {
		text, err := licence(m.Dir)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Path, err)
		}
		fmt.Fprintf(w, "\n%s\n%s\n\n%s", strings.Repeat("-", 78),
			strings.TrimSpace(m.Path+" "+m.Version), text)
	}
	return nil
}

// linked lists the modules that are linked into the programs, without the module of tlsd.
func linked() ([]module, error) {
	args := append([]string{"list", "-deps", "-json=Module"}, programs...)
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var found []module
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var pkg struct{ Module *module }
		if err := d.Decode(&pkg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if m := pkg.Module; m != nil && !m.Main && !slices.Contains(found, *m) {
			found = append(found, *m)
		}
	}
	slices.SortFunc(found, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	return found, nil
}

var licenceName = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([.-].*)?$`)

// licence returns the text of all licence files in the folder of a module.
func licence(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, e := range entries {
		if e.IsDir() || !licenceName.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s\n", strings.TrimSpace(string(text)))
	}
	if b.Len() == 0 {
		return "", fmt.Errorf("there is no file of its licence in %s", dir)
	}
	return b.String(), nil
}
