package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"tlsd/internal/testcc"
)

// libFuzzerTargets are the sources in src, without .c; each has its inputs in corpus.
var libFuzzerTargets = []string{"session", "json"}

const pluginSources = "cmd/tlsshim/plugin"

// buildLibFuzzer compiles a target with the plugin's sources. root is the top of the source tree.
// The target session includes exchange.c, so exchange.c is not compiled a second time.
func buildLibFuzzer(ctx context.Context, root, dir, name string) (program string, err error) {
	plugin, err := filepath.Glob(filepath.Join(root, pluginSources, "*.c"))
	if err != nil || len(plugin) == 0 {
		return "", fmt.Errorf("no sources of the plugin in %s: %v", root, err)
	}
	program = filepath.Join(dir, name)
	sources := []string{filepath.Join(root, "test/run/fuzz/src", name+".c")}
	for _, s := range plugin {
		if name != "session" || filepath.Base(s) != "exchange.c" {
			sources = append(sources, s)
		}
	}
	if err := testcc.Compile(ctx, "clang", program, sources, "-O1", "-fno-omit-frame-pointer",
		"-pthread", "-fsanitize=fuzzer,address,undefined",
		"-fno-sanitize-recover=all"); err != nil {
		return "", fmt.Errorf("clang with its run-time libraries (libclang-rt-*-dev) is "+
			"needed: %w", err)
	}
	return program, nil
}

// libFuzzerCommand returns a command that runs a target on new inputs. libFuzzer keeps new inputs
// in a folder below dir. If an input makes the target fail, libFuzzer adds this input to the
// corpus.
func libFuzzerCommand(ctx context.Context, dir, name string, length time.Duration) (
	*exec.Cmd, error) {
	program, err := buildLibFuzzer(ctx, ".", dir, name)
	if err != nil {
		return nil, err
	}
	corpus := filepath.Join("test/run/fuzz/corpus", name)
	found := filepath.Join(dir, name+".found")
	if err := os.Mkdir(found, 0o700); err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, program,
		fmt.Sprintf("-max_total_time=%d", max(1, int(length.Seconds()))),
		"-print_final_stats=1",
		"-timeout=20", "-artifact_prefix="+corpus+"/", found, corpus), nil
}
