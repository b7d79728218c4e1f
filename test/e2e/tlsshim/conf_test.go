package tlsshim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// tlsshim reads the administrator's file /etc/tlsd/client.conf. In this test, a mount namespace
// gives tlsshim another /etc.
func TestTheAdministratorsFileIsRead(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, for a mount namespace and a file of root's")
	}
	d := testd.Start(t)
	for name, c := range map[string]struct {
		conf   string
		args   []string
		status int
		says   []string
	}{
		"it names the socket": {"socket = " + d.Socket, []string{"status"}, 0,
			[]string{" at " + d.Socket}},
		"nobody answers there": {"socket = /nonexistent/s", []string{"status"}, 3,
			[]string{"/nonexistent/s: there is no such file"}},
		"doctor, nobody there": {"socket = /nonexistent/s", []string{"doctor"}, 1,
			[]string{"socket=/nonexistent/s, autostart=(not set)",
				"warn  autostart     the system's tlsd is down, and the plugin " +
					"starts no private one, because " +
					"/etc/tlsd/client.conf names"}},
		"it is bad": {"sockt = /x", []string{"status"}, 1,
			[]string{"/etc/tlsd/client.conf: line 1: want"}},
		"doctor, and it is bad": {"sockt = /x", []string{"doctor"}, 1,
			[]string{"fail  client.conf   /etc/tlsd/client.conf: line 1: want",
				"calls will not work"}},
		"--socket needs it not": {"sockt = /x", []string{"--socket", d.Socket, "status"}, 0,
			[]string{" at " + d.Socket}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			etc := t.TempDir()
			if err := os.Mkdir(filepath.Join(etc, "tlsd"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(etc, "tlsd/client.conf"),
				[]byte(c.conf+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd, stdout, stderr := shim(t, "", c.args...)
			unshare := testkit.Tool(t, "unshare")
			cmd.Args = append([]string{unshare, "--mount", "sh", "-c",
				`mount --make-rprivate / && mount --bind "$0" /etc && exec "$@"`,
				etc, cmd.Path}, c.args...)
			cmd.Path = unshare
			cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
			_ = cmd.Run() // ProcessState has the result
			if cmd.ProcessState.ExitCode() != c.status {
				t.Errorf("tlsshim ends with %v, want %d; %s%s", cmd.ProcessState,
					c.status, stdout, stderr)
			}
			for _, want := range c.says {
				if all := stdout.String() +
					stderr.String(); !strings.Contains(all, want) {
					t.Errorf("tlsshim prints %q; want %q", all, want)
				}
			}
		})
	}
}
