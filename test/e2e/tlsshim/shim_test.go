package tlsshim

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tlsd/internal/testcert"
	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// tlsshim turns its arguments into calls. An interrupt cancels the call in flight.

// shim makes a command that will run tlsshim, and two buffers that will get its output. The caller
// starts the command. The command is killed if it does not end in time.
func shim(t *testing.T, socket string, args ...string) (cmd *exec.Cmd, stdout,
	stderr *bytes.Buffer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, testd.Exe(t, "tlsshim"), args...)
	cmd.Env = []string{"TLSD_SOCKET=" + socket}
	cmd.Dir = "/"
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

func TestAnInterruptCancelsTheCallInFlight(t *testing.T) {
	t.Parallel()
	d, s := testd.Start(t), startEcho(t)
	for _, flags := range [][]string{nil, {"--json"}} {
		args := append(flags, "call", "SetCaBundle", s.ca.File, "--", "NewClient",
			"localhost", strconv.Itoa(s.port),
			"--", "Handshake", "1", "--", "Read", "1", "10", "--", "Backend")
		cmd, stdout, stderr := shim(t, d.Socket, args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-s.shaken // tlsshim goes on to its Read, for which no data will come
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		if cmd.ProcessState.ExitCode() != 130 {
			t.Errorf("tlsshim %q, interrupted, ends with %v, want 130; %q, %q", flags,
				err, stdout, stderr)
		}
		if all := stdout.String() + stderr.String(); !strings.Contains(all, "cancelled") ||
			strings.Contains(all, "openssl") {
			t.Errorf("tlsshim %q, interrupted, prints %q; want tlsd's answer that the "+
				"call is cancelled, and no later call", flags, all)
		}
		<-s.ended // tlsd has closed the connection
	}
}

func TestAServerIsMadeOfCalls(t *testing.T) {
	t.Parallel()
	d, port := testd.Start(t), testkit.Port(t)
	ca := testcert.NewCA(t, "Test CA")
	leaf := ca.Localhost(t)
	cmd, stdout, stderr := shim(t, d.Socket, "call", "NewServerContext", leaf.CertFile,
		leaf.KeyFile, "--",
		"Accept", "1", "127.0.0.1", strconv.Itoa(port), "--", "Read", "2", "100", "--",
		"Write", "2", "-", "--", "Close", "2", "--", "CloseServerContext", "1")
	cmd.Stdin = strings.NewReader("and to you\n")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testd.AwaitListener(t, port)
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: testkit.Patience}, "tcp",
		testkit.Addr(port), &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "hello")
	if got, err := io.ReadAll(conn); string(got) != "and to you\n" || err != nil {
		t.Errorf("the client of tlsshim's server got %q, %v; want \"and to you\", and no "+
			"error", got, err)
	}
	if err := cmd.Wait(); err != nil || stdout.String() != "1\n2\nhello11\n0\n0\n" {
		t.Errorf("tlsshim as a server ends with %v, stdout %q, stderr %q; want success, "+
			"and the results of all calls", err, stdout,
			stderr)
	}
}

func TestCallKnowsTheParametersOfEveryMethod(t *testing.T) {
	t.Parallel()
	d := testd.Start(t)
	output := func(args ...string) []byte {
		cmd, stdout, stderr := shim(t, d.Socket, args...)
		if err := cmd.Run(); err != nil {
			t.Fatalf("tlsshim %q: %v: %s", args, err, stderr)
		}
		return stdout.Bytes()
	}
	var doc struct {
		Methods []struct {
			Name   string
			Params []struct {
				Name     string
				Required bool
			}
		}
	}
	if err := json.Unmarshal(output("call", "rpc.discover"), &doc); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range doc.Methods {
		switch m.Name {
		case "tls.Hello", "$/cancelRequest": // tlsshim calls them by itself
			continue
		case "tls.Signal": // needs descriptors, which arguments of a program cannot be
			continue
		}
		words := []string{strings.TrimPrefix(m.Name, "tls.")}
		for _, p := range m.Params {
			if p.Name == "channel" {
				continue // needs a descriptor
			}
			if p.Required {
				words = append(words, p.Name)
			} else {
				words = append(words, "["+p.Name+"]")
			}
		}
		want = append(want, strings.Join(words, " "))
	}
	var got []string
	_, list, _ := strings.Cut(string(output("call", "--help")), "\nMethods:\n")
	for line := range strings.Lines(list) {
		if line == "\n" {
			break
		}
		usage, _, _ := strings.Cut(strings.TrimSpace(line), "  ")
		got = append(got, usage)
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) < 16 || !slices.Equal(got, want) {
		t.Errorf("tlsshim call --help lists\n%q\nbut tlsd has the methods\n%q", got, want)
	}
}

// tlsshim doctor says whether the user may connect. If not, it says why, and what to do.
func TestDoctorExplainsWhoMayConnect(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		testkit.Missing(t, "needs root, to run as two users")
	}
	const nobody = 65534
	for _, tt := range []struct {
		name       string
		daemon     testd.Options
		uid        uint32
		why, mend  string
		callStatus int
	}{
		{"socket mode", testd.Options{}, nobody, "permission denied for user 65534 (mode " +
			"0600, user 0, group 0)", "--allow-uid=65534", 3},
		{"not admitted", testd.Options{Flags: []string{"--socket-mode=0666"}}, nobody,
			"65534", "--allow-uid=65534", 3},
		{"admitted", testd.Options{Flags: []string{"--allow-uid=65534"}}, nobody,
			"run by root (user 0)", "", 0},
		{"a stranger's", testd.Options{UID: nobody}, 0, "user 65534 runs the tlsd there, " +
			"and could read all data; this user is not root, not you (user 0)",
			"TLSD_SOCKET", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := testd.StartWith(t, tt.daemon)
			start := func(args ...string) (int, string) {
				cmd, stdout, stderr := shim(t, d.Socket, args...)
				if tt.uid != 0 {
					cmd.SysProcAttr = &syscall.SysProcAttr{
						Credential: &syscall.Credential{Uid: tt.uid,
							Gid: tt.uid}}
				}
				if err := cmd.Run(); cmd.ProcessState == nil {
					t.Fatal(err)
				}
				return cmd.ProcessState.ExitCode(), stdout.String() +
					stderr.String()
			}
			wantDoctor := min(tt.callStatus, 1)
			if status, out := start("doctor"); status != wantDoctor ||
				!strings.Contains(out, tt.why) || !strings.Contains(out, tt.mend) {
				t.Errorf("tlsshim doctor ended with %d, want %d, and the texts "+
					"%q and %q:\n%s",
					status, wantDoctor, tt.why, tt.mend, out)
			}
			if status, out := start("call", "Backend"); status != tt.callStatus ||
				tt.callStatus != 0 && !strings.Contains(out, tt.why) {
				t.Errorf("tlsshim call ended with %d, want %d:\n%s", status,
					tt.callStatus, out)
			}
		})
	}
}
