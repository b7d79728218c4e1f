package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"tlsd/internal/testkit"
)

// Much data in both directions at once does not hang.

// serveEcho does what tlsd does, for one session. Each connection of the session sends back what it
// gets. It does so slowly, so that the plugin has to wait: the buffers are small, and a connection
// does not read while it writes.
func serveEcho(p *peer) error {
	p.conn.SetWriteBuffer(4096)
	p.conn.SetReadBuffer(4096)
	var echoes sync.WaitGroup
	defer echoes.Wait()
	handles := 0
	for {
		r, err := p.read()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		result := "0"
		switch r.Method {
		case "tls.Hello":
			result = agreement
		case "tls.NewClient":
			handles++
			result = fmt.Sprint(handles)
		case "tls.Handshake":
			data, err := p.takeChannel()
			if err != nil {
				return err
			}
			echoes.Go(func() {
				defer data.Close()
				data.SetWriteBuffer(4096)
				piece := make([]byte, 20_000)
				for {
					n, err := data.Read(piece)
					if err != nil {
						return
					}
					if _, err := data.Write(piece[:n]); err != nil {
						return
					}
				}
			})
		}
		if _, err := fmt.Fprintf(p.conn, `{"jsonrpc":"2.0","id":%d,"result":%s}`+"\n",
			*r.ID, result); err != nil {
			return err
		}
	}
}

// runBulk runs the program testdata/bulk.c to its end, as startHostWith runs a host.
func runBulk(t *testing.T, o hostOptions, args ...any) {
	t.Helper()
	list := append(o.wrapper, o.flavour.program(t, "testdata/bulk.c"), o.flavour.library(t))
	for _, a := range args {
		list = append(list, fmt.Sprint(a))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*testkit.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, list[0], list[1:]...)
	cmd.Env = append(append(os.Environ(), "TLSD_AUTOSTART=0"),
		append(o.flavour.env, o.env...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if out, err := cmd.Output(); err != nil || string(out) != "done\n" {
		t.Errorf("testdata/bulk.c: %v; want the output \"done\", got\n%s%s", err, out,
			stderr.String())
	}
}

// valgrind returns a hostOptions.wrapper that runs a host of the flavour plain under valgrind.
func valgrind(t *testing.T, options ...string) []string {
	t.Helper()
	return append([]string{testkit.Tool(t, "valgrind"), "--quiet", "--error-exitcode=96",
		"--fair-sched=yes"}, options...)
}

func TestMuchDataInBothDirectionsAtOnceDoesNotHang(t *testing.T) {
	t.Parallel()
	memcheck := func(t *testing.T) []string {
		return valgrind(t, "--leak-check=full", "--show-leak-kinds=definite,possible",
			"--errors-for-leak-kinds=definite,possible", "--track-fds=no")
	}
	for _, c := range []struct {
		name         string
		flavour      *flavour
		wrapper      func(t *testing.T) []string
		conns        int
		bytes, chunk int
	}{
		{"one connection", plain, nil, 1, 64 << 20, 1<<20 + 1},
		{"one connection, largest pieces", plain, nil, 1, 64 << 20, 16 << 20},
		{"one connection, address sanitizer", asan, nil, 1, 16 << 20, 1<<20 + 1},
		{"eight connections", plain, nil, 8, 8 << 20, 300_001},
		{"eight connections, small", plain, nil, 8, 200_000, 999},
		{"eight connections, address sanitizer", asan, nil, 8, 2 << 20, 300_001},
		{"eight connections, thread sanitizer", tsan, nil, 8, 1 << 20, 100_001},
		{"eight connections, memcheck", plain, memcheck, 8, 1 << 20, 100_001},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newStandIn(t)
			o := hostOptions{flavour: c.flavour, env: []string{d.env()}}
			if c.wrapper != nil {
				o.wrapper = c.wrapper(t)
			}
			served := make(chan error, 1)
			go func() {
				conn, err := d.ln.AcceptUnix()
				if err != nil {
					served <- err
					return
				}
				defer conn.Close()
				served <- serveEcho(newPeer(conn))
			}()
			runBulk(t, o, "h", 1, "", c.conns, c.bytes, c.chunk)
			d.ln.Close()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}
