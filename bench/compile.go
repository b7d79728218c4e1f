package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// The programs and their sources. Only those that speak TLS are linked with libssl.
var programs = []struct {
	name    string
	sources []string
	libs    []string
}{
	{"sink", []string{"sink.c", "stream.c"}, []string{"-lssl", "-lcrypto"}},
	{"client-inprocess", append(client, "inprocess.c"), []string{"-lssl", "-lcrypto"}},
	{"client-plugin", append(client, "plugin.c"), []string{"-ldl"}},
	{"client-plain", append(client, "plain.c"), nil},
	{"client-hop", append(client, "hop.c"), nil},
	{"relay-inprocess", []string{"relay.c", "inprocess.c", "stream.c"},
		[]string{"-lssl", "-lcrypto"}},
	{"relay-hop", []string{"relay.c", "hop.c", "stream.c"}, nil},
	{"calls", []string{"calls.c", "measure.c", "stream.c"}, []string{"-ldl"}},
	{"sessions", []string{"sessions.c", "measure.c", "stream.c"}, nil},
	{"bare", []string{"bare.c", "measure.c", "stream.c"}, nil},
	{"records", []string{"records.c", "measure.c", "stream.c"}, []string{"-lssl", "-lcrypto"}},
}

var client = []string{"client.c", "traffic.c", "beside.c", "opening.c", "measure.c", "stream.c"}

// compile makes the programs in dir.
func compile(ctx context.Context, root, dir string) error {
	for _, p := range programs {
		args := []string{"-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wpedantic",
			"-Werror", "-O2", "-g", "-pthread",
			"-I", filepath.Join(root, "cmd/tlsshim/plugin"), "-o",
			filepath.Join(dir, p.name)}
		for _, s := range p.sources {
			args = append(args, filepath.Join(root, "bench/src", s))
		}
		out, err := exec.CommandContext(ctx, "gcc",
			append(args, p.libs...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("compile %s (gcc and libssl-dev are needed): %w\n%s",
				p.name, err, out)
		}
	}
	return nil
}
