package main

import (
	"fmt"
	"strings"
	"testing"

	"tlsd/internal/testpages"
)

// The manual page and the shells' completions of tlsshim are made from its tables of subcommands
// and methods.

const folder = "../../packaging/"

func TestPageOfTlsshimIsTheTables(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for _, sub := range subcommands {
		fmt.Fprintf(&b, ".Ss %s\n.Nm\n.Cm %s\n", sub.name, sub.name)
		if sub.args != "" {
			fmt.Fprintf(&b, ".Ar %s\n", testpages.Argument(sub.args))
		}
		b.WriteString(".Bd -literal\n")
		for line := range strings.Lines(subHelp[sub.name] + "\n") {
			line = strings.NewReplacer(`\`, `\e`, "…", "...").Replace(line)
			if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
				line = `\&` + line
			}
			b.WriteString(line)
		}
		b.WriteString(".Ed\n")
	}
	b.WriteString(".Ss Methods\n.Bl -tag -width Ds\n")
	for i := range methods {
		fmt.Fprintf(&b, ".It %s\n%s", testpages.Argument(methods[i].usage()),
			testpages.Text(methods[i].about))
	}
	b.WriteString(".El\n")
	testpages.Hold(t, folder+"man/tlsshim.1", b.String())
}

func TestCompletionsAreTheTables(t *testing.T) {
	t.Parallel()
	flags := []string{"--socket", "--admin-socket", "--timeout", "--json", "--watch",
		"--reason", "--listen", "--version", "--help"}
	var words, zsh, fish, names []string
	for _, sub := range subcommands {
		words = append(words, sub.name)
		zsh = append(zsh, testpages.Quote(sub.name+":"+sub.about))
		fish = append(fish, fmt.Sprintf("complete -c tlsshim -n __fish_use_subcommand "+
			"-f -a %s -d %s\n", sub.name, testpages.Quote(sub.about)))
	}
	for i := range methods {
		names = append(names, strings.Fields(methods[i].usage())[0])
	}
	for _, f := range flags {
		fish = append(fish, fmt.Sprintf("complete -c tlsshim -l %s\n",
			strings.TrimPrefix(f, "--")))
	}
	fish = append(fish,
		fmt.Sprintf("complete -c tlsshim -n '__fish_seen_subcommand_from call' -a '%s'\n",
			strings.Join(names, " ")))
	testpages.Hold(t, folder+"completions/tlsshim.bash",
		fmt.Sprintf("\t--socket | --admin-socket) compopt -o default; return ;;\n"+
			"\tcall | --) words='%s' ;;\n"+
			"\t*) words='%s' ;;\n",
			strings.Join(names, " "), strings.Join(append(words, flags...), " ")))
	testpages.Hold(t, folder+"completions/_tlsshim",
		fmt.Sprintf("local -a subcommands methods\n"+
			"subcommands=(%s)\nmethods=(%s)\n"+
			"_arguments '--socket[the socket of tlsd]:PATH:_files' "+
			"'--timeout[how long a call may take]:TIME:' "+
			"'--json[results for programs]' "+
			"'--admin-socket[the admin socket of tlsd]:PATH:_files' \\\n"+
			"\t'1:subcommand:{_describe subcommand subcommands}' "+
			"'*:method:(($methods))'\n",
			strings.Join(zsh, " "), strings.Join(names, " ")))
	testpages.Hold(t, folder+"completions/tlsshim.fish", strings.Join(fish, ""))
}
