package main

import (
	"context"
	"fmt"
	"path/filepath"

	"tlsd/internal/testcc"
)

// The programs and their sources. Only programs that speak TLS themselves are linked with libssl.
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
		var sources []string
		for _, s := range p.sources {
			sources = append(sources, filepath.Join(root, "bench/src", s))
		}
		flags := append([]string{"-D_GNU_SOURCE", "-O2", "-pthread",
			"-I", filepath.Join(root, "cmd/tlsshim/plugin")}, p.libs...)
		if err := testcc.Compile(ctx, "gcc", filepath.Join(dir, p.name), sources,
			flags...); err != nil {
			return fmt.Errorf("gcc and libssl-dev are needed: %w", err)
		}
	}
	return nil
}
