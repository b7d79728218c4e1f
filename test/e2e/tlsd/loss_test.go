package tlsd

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testcert"
	"tlsd/internal/testkit"
)

// A caller whose worker dies is told why, and in which call.

// connect begins a session over a plain socket. It returns the process ID of the worker, too.
func connect(t *testing.T, sock string) (conn *net.UnixConn, in *bufio.Reader, worker int) {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: sock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(testkit.Patience))
	in = bufio.NewReader(conn)
	var hello struct {
		Result struct{ Server struct{ PID int } }
	}
	line := exchange(t, conn, in, `{"jsonrpc":"2.0","id":0,"method":"tls.Hello","params":[1]}`)
	if err := json.Unmarshal([]byte(line), &hello); err != nil || hello.Result.Server.PID == 0 {
		t.Fatalf("the answer to tls.Hello must have the worker's process ID: %s: "+
			"%v", line, err)
	}
	return conn, in, hello.Result.Server.PID
}

// exchange sends lines and returns the next line that comes.
func exchange(t *testing.T, conn net.Conn, in *bufio.Reader, lines ...string) string {
	t.Helper()
	if _, err := fmt.Fprintln(conn, strings.Join(lines, "\n")); err != nil {
		t.Fatal(err)
	}
	line, err := in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func TestWaitingCallIsToldTheSignalAndItsMethod(t *testing.T) {
	t.Parallel()
	cert := testcert.NewCA(t, "Test CA").Localhost(t)
	sock := filepath.Join(testkit.Dir(t), "s")
	startWith(t, nil, "", "--socket", sock)
	other, otherIn, _ := connect(t, sock)
	for sig, why := range map[unix.Signal]string{
		unix.SIGSEGV: "died of SIGSEGV", unix.SIGABRT: "died of SIGABRT",
		unix.SIGKILL: "was killed (SIGKILL)",
	} {
		conn, in, worker := connect(t, sock)
		params, _ := json.Marshal([]string{cert.CertFile, cert.KeyFile})
		if got := exchange(t, conn, in,
			`{"jsonrpc":"2.0","id":1,"method":"tls.NewServerContext","params":`+string(
				params)+`}`); !strings.Contains(got, `"result":1`) {
			t.Fatalf("tls.NewServerContext must succeed: %s", got)
		}
		// When the second call is answered, the first one has begun.
		exchange(t, conn, in,
			`{"jsonrpc":"2.0","id":2,"method":"tls.Accept","params":[1,"127.0.0.1",`+strconv.Itoa(testkit.Port(t))+`]}`, askBackend)
		if err := unix.Kill(worker, sig); err != nil {
			t.Fatal(err)
		}
		want := `{"jsonrpc":"2.0","id":null,"error":{"code":-32013,"message":"lost: the worker of this session ` + why + ` in tls.Accept","data":{"kind":"lost"}}}` + "\n"
		if rest, _ := io.ReadAll(in); string(rest) != want {
			t.Errorf("the worker was sent %v; the caller is told %q; want "+
				"%q", sig, rest, want)
		}
	}
	if got := exchange(t, other, otherIn, askBackend); !strings.Contains(got,
		`"result":"openssl"`) {
		t.Errorf("another session does not work any more: %s", got)
	}
}
