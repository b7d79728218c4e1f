package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"tlsd/internal/testpages"
)

// Parts of the manual pages, of the sample of the configuration file and of the shells' completions
// repeat the table of flags. "make pages" writes these parts. The tests below check that the parts
// match the table.

const folder = "../../packaging/"

func TestPageOfTlsdIsTheTable(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for _, f := range flagTable(&options{}) {
		if f.heading != "" {
			if b.Len() > 0 {
				b.WriteString(".El\n")
			}
			fmt.Fprintf(&b, ".Ss %s\n.Bl -tag -width Ds\n", f.heading)
		}
		fmt.Fprintf(&b, ".It Fl Fl %s", f.name)
		if f.arg != "" {
			fmt.Fprintf(&b, " Ar %s", testpages.Argument(f.arg))
		}
		fmt.Fprintf(&b, "\n%s", sentence(f.text))
		if f.hasVariable() {
			b.WriteString(sentence("Default: " + f.preset))
			fmt.Fprintf(&b, "Environment:\n.Ev %s .\n", envName(f.name))
		}
	}
	b.WriteString(".El\n")
	testpages.Hold(t, folder+"man/tlsd.8", b.String())
}

func TestPageOfTheConfigurationFileMatchesTheFlags(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(".Bl -tag -width Ds\n")
	for _, f := range flagTable(&options{}) {
		if f.hasKey() {
			fmt.Fprintf(&b, ".It Cm %s No = Ar %s\n%s%s", f.name,
				testpages.Argument(f.kind()), sentence(f.text),
				sentence("Default: "+f.preset))
		}
	}
	b.WriteString(".El\n")
	testpages.Hold(t, folder+"man/tlsd.toml.5", b.String())
}

func TestSampleOfTheFileIsTheTable(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for _, f := range flagTable(&options{}) {
		if !f.hasKey() {
			continue
		}
		fmt.Fprintf(&b, "\n# %s\n# default: %s\n#%s = %s\n", f.text, f.preset, f.name,
			f.example())
	}
	testpages.Hold(t, folder+"tlsd.toml", b.String())
	if _, err := parseConfig([]byte(strings.ReplaceAll(b.String(), "\n#", "\n")),
		flagTable(&options{})); err == nil {
		t.Error("the parser accepts the sample's explanations as settings, so it would " +
			"also accept a wrong sample")
	}
	var settings strings.Builder
	for line := range strings.Lines(b.String()) {
		if setting, ok := strings.CutPrefix(line, "#"); ok &&
			!strings.HasPrefix(setting, " ") {
			settings.WriteString(setting)
		}
	}
	// Each setting accepts its value in the sample.
	var o options
	table := flagTable(&o)
	values, err := parseConfig([]byte(settings.String()), table)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range table {
		if v, ok := values[f.name]; ok {
			if err := f.value.Set(v.text); err != nil {
				t.Errorf("%s = %s: %v", f.name, v.text, err)
			}
		} else if f.hasKey() {
			t.Errorf("the sample lacks %s", f.name)
		}
	}
}

// zshText escapes a description in brackets for zsh's _arguments.
var zshText = strings.NewReplacer("[", `\[`, "]", `\]`, ":", `\:`)

func TestCompletionsAreTheTable(t *testing.T) {
	t.Parallel()
	var words, choices, files, zsh, fish []string
	for _, f := range flagTable(&options{}) {
		words = append(words, "--"+f.name)
		spec := fmt.Sprintf("--%s[%s]", f.name, zshText.Replace(f.text))
		line := fmt.Sprintf("complete -c tlsd -l %s -d %s", f.name, testpages.Quote(f.text))
		switch v := f.value.(type) {
		case *choice:
			values := strings.Join(v.from, " ")
			choices = append(choices,
				fmt.Sprintf("\t--%s) words='%s' ;;\n", f.name, values))
			spec += fmt.Sprintf(":%s:(%s)", f.arg, values)
			line += fmt.Sprintf(" -x -a '%s'", values)
		case *text, *paths:
			files = append(files, "--"+f.name)
			spec += ":" + f.arg + ":_files"
			line += " -r"
		default:
			if f.arg != "" {
				spec += ":" + f.arg + ":"
				line += " -x"
			} else {
				line += " -f"
			}
		}
		zsh = append(zsh, "\t"+testpages.Quote(spec)+" \\\n")
		fish = append(fish, line+"\n")
	}
	bash := fmt.Sprintf("\t%s) compopt -o default; return ;;\n%s\t*) words='%s' ;;\n",
		strings.Join(files, " | "), strings.Join(choices, ""), strings.Join(words, " "))
	testpages.Hold(t, folder+"completions/tlsd.bash", bash)
	testpages.Hold(t, folder+"completions/_tlsd",
		"_arguments \\\n"+strings.TrimSuffix(strings.Join(zsh, ""), " \\\n")+"\n")
	testpages.Hold(t, folder+"completions/tlsd.fish", strings.Join(fish, ""))
}

// sentence turns a text of the help into a sentence of a manual page. Its first letter becomes a
// capital, unless the text begins with a value and a colon, such as "auto:".
func sentence(s string) string {
	if first, _, _ := strings.Cut(s, " "); strings.HasSuffix(first, ":") &&
		first != "Default:" {
		return testpages.Text(s + ".")
	}
	return testpages.Text(strings.ToUpper(s[:1]) + s[1:] + ".")
}

// kind describes the value of a setting in the configuration file.
func (f flagInfo) kind() string {
	switch f.value.(type) {
	case *number:
		return "number"
	case *size:
		return "number or \"SIZE\""
	case *ids, *paths:
		return "[" + strings.TrimSuffix(f.arg, ",…") + ", ...]"
	}
	return "\"" + f.arg + "\""
}

// example returns the value of a setting in the sample: if possible, the default.
func (f flagInfo) example() string {
	switch v := f.value.(type) {
	case *number:
		if _, err := strconv.Atoi(f.preset); err == nil {
			return f.preset
		}
		return fmt.Sprint(min(max(v.min, 10), v.max))
	case *text:
		return quote(map[string]string{
			"socket":       "/run/tlsd.sock",
			"policy":       "/etc/tlsd/policy.toml",
			"admin-socket": "/run/tlsd/admin.sock",
			"key-log":      "/var/log/tlsd/keys",
			"audit-log":    "/var/log/tlsd/audit.log",
			"libssl":       "libssl.so.3",
		}[f.name])
	case *mode:
		return `"0600"`
	case *ids:
		return `["root"]`
	case *paths:
		return `["/etc"]`
	}
	return f.tomlValue()
}
