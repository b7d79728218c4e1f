package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// serveEcho is the worst tlsd there may be that still keeps to the protocol: one thread,
// which does not read while it writes, and small buffers. Each connection echoes.
func serveEcho(p *peer) error {
	p.conn.SetWriteBuffer(4096)
	p.conn.SetReadBuffer(4096)
	type connection struct {
		data  bytes.Buffer
		id    int64 // of the Read that waits, or 0
		limit int64
	}
	conns := map[int64]*connection{}
	answer := func(id int64, result string) error {
		_, err := fmt.Fprintf(p.out, `{"jsonrpc":"2.0","id":%d,"result":%s}`+"\n", id, result)
		return err
	}
	for {
		r, err := p.read()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var n []int64
		if r.Method == "tls.Hello" {
			err = answer(*r.ID, `{"version":1,"capabilities":["raw"]}`)
		} else if r.Method == "tls.NewClient" {
			h := int64(len(conns) + 1)
			conns[h] = &connection{}
			err = answer(*r.ID, fmt.Sprint(h))
		} else if err = json.Unmarshal(r.Params, &n); err == nil {
			switch c := conns[n[0]]; r.Method {
			case "tls.Write":
				c.data.Write(r.blob)
				err = answer(*r.ID, fmt.Sprint(len(r.blob)))
			case "tls.Read":
				c.id, c.limit = *r.ID, n[1]
			default:
				err = answer(*r.ID, "0")
			}
		}
		if err != nil {
			return err
		}
		for _, c := range conns {
			if c.id == 0 || c.data.Len() == 0 {
				continue
			}
			data := c.data.Next(int(c.limit))
			if _, err := fmt.Fprintf(p.out, `{"jsonrpc":"2.0","id":%d,"result":null,"raw":%d}`+"\n%s", c.id, len(data), data); err != nil {
				return err
			}
			c.id = 0
		}
	}
}

// runBulk runs testdata/bulk.c to its end. settings are as for a hostOptions.
func runBulk(t *testing.T, o hostOptions, args ...any) {
	t.Helper()
	list := append(o.wrapper, o.flavour.program(t, "testdata/bulk.c"), o.flavour.library(t))
	for _, a := range args {
		list = append(list, fmt.Sprint(a))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, list[0], list[1:]...)
	cmd.Env = append(append(os.Environ(), "TLSD_AUTOSTART=0"), append(o.flavour.env, o.env...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if out, err := cmd.Output(); err != nil || string(out) != "done\n" {
		t.Errorf("bulk: %v\n%s%s", err, out, stderr.String())
	}
}

// valgrind are the wrappers that the plain flavour can be run under.
func valgrind(t *testing.T, tool ...string) []string {
	t.Helper()
	return append([]string{needTool(t, "valgrind"), "--quiet", "--error-exitcode=96", "--fair-sched=yes"}, tool...)
}

func TestMuchDataInBothDirectionsAtOnceDoesNotHang(t *testing.T) {
	t.Parallel()
	memcheck := func(t *testing.T) []string {
		return valgrind(t, "--leak-check=full", "--show-leak-kinds=definite,possible", "--errors-for-leak-kinds=definite,possible", "--track-fds=no")
	}
	for _, c := range []struct {
		name         string
		flavour      *flavour
		wrapper      func(t *testing.T) []string
		conns        int
		bytes, chunk int
	}{
		{"one connection", plain, nil, 1, 64 << 20, 1<<20 + 1},
		{"one connection, largest blobs", plain, nil, 1, 64 << 20, 16 << 20},
		{"one connection, address sanitizer", asan, nil, 1, 64 << 20, 1<<20 + 1},
		{"eight connections", plain, nil, 8, 8 << 20, 300_001},
		{"eight connections, small", plain, nil, 8, 200_000, 999},
		{"eight connections, address sanitizer", asan, nil, 8, 4 << 20, 300_001},
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
