package hostile

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// A session is a connection between a caller and tlsd. The caller can send tlsd a duplicate of the
// caller's own socket (SCM_RIGHTS). If tlsd kept the duplicate open, it would not see that the
// caller is gone. The session would live until --session-idle-timeout, and for ever if a call is in
// flight. In this file the variable end is the caller's socket.

// duplicateOf returns a duplicate of the socket of conn.
func duplicateOf(t *testing.T, conn *net.UnixConn) *os.File {
	t.Helper()
	f, err := conn.File()
	testkit.Must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// soPassRights is the socket option SO_PASSRIGHTS. If it is 0, the socket receives no descriptors.
const soPassRights = 83

// knowsPassRights says whether the kernel has SO_PASSRIGHTS.
func knowsPassRights(t *testing.T) bool {
	t.Helper()
	a, _ := testkit.SocketPair(t, unix.SOCK_STREAM)
	_, err := unix.GetsockoptInt(int(a.Fd()), unix.SOL_SOCKET, soPassRights)
	if err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		t.Fatal(err)
	}
	return err == nil
}

// give sends bytes to the other end of a socket, together with descriptors.
func give(to *os.File, text string, files ...*os.File) error {
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	return unix.Sendmsg(int(to.Fd()), []byte(text), unix.UnixRights(fds...), nil, 0)
}

// When a caller has closed its socket, its session ends, even if the caller has sent tlsd a
// duplicate of the socket. If the duplicate is in the queue of a signal pair (the socket pair of a
// tls.Signal), the session ends at the idle timeout. In all other cases it ends without this
// timeout. Each case sends the duplicate in another way.
func TestADuplicateOfTheCallersSocketDoesNotKeepItsSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port, _ := w.echo(t)
	request := func(method, params string, args ...any) string {
		line := `{"jsonrpc":"2.0","id":2,"method":"tls.` + method + `","params":` + params + "}\n"
		return fmt.Sprintf(line, args...)
	}
	context := request("NewServerContext", "[%q,%q]", w.cert.CertFile, w.cert.KeyFile)
	// An Accept waits without a time limit.
	accept := func(channel int) string {
		return request("Accept", `[1,"127.0.0.1",%d,%d]`, testkit.Port(t), channel)
	}
	// answered reads lines up to the given answer, and ignores the other lines.
	answered := func(t *testing.T, end *os.File, answer string) {
		for in := bufio.NewReader(end); ; {
			line, err := in.ReadString('\n')
			testkit.Must(t, err)
			if line == answer+"\n" {
				return
			}
		}
	}
	// signal makes a context listen, makes the calls in requests, and calls tls.Signal with a
	// socket pair. Then it puts a duplicate of the caller's socket into a queue of the pair: if
	// second is true, into the queue of the second socket, else into the queue of the first.
	signal := func(t *testing.T, end *os.File, requests string, second bool) {
		a, b := testkit.SocketPair(t, unix.SOCK_STREAM)
		listen := request("Listen", `[1,"127.0.0.1",%d]`, testkit.Port(t))
		testkit.Must(t, give(end, context+listen+requests))
		signals := strings.Replace(request("Signal", "[1,1]"), `"id":2`, `"id":3`, 1)
		testkit.Must(t, give(end, signals, a, b))
		answered(t, end, `{"jsonrpc":"2.0","id":3,"result":0}`)
		if !second {
			a, b = b, a
		}
		if knowsPassRights(t) {
			testkit.Must(t, unix.SetsockoptInt(int(b.Fd()), unix.SOL_SOCKET,
				soPassRights, 1))
		}
		testkit.Must(t, give(a, "x", end, a, b))
		testkit.Must(t, errors.Join(a.Close(), b.Close()))
	}
	for name, leave := range map[string]func(t *testing.T, end *os.File){
		"in the queue of a signal pair": func(t *testing.T, end *os.File) {
			signal(t, end, "", true)
		},
		"in the other queue of a signal pair": func(t *testing.T, end *os.File) {
			signal(t, end, "", false)
		},
		"in the queue of a signal pair, beside a call that waits": func(t *testing.T,
			end *os.File) {
			signal(t, end, accept(0), true)
		},
		"sent": func(t *testing.T, end *os.File) {
			testkit.Must(t, give(end, " ", end))
		},
		"sent in the queue of a socket": func(t *testing.T, end *os.File) {
			a, b := testkit.SocketPair(t, unix.SOCK_STREAM)
			testkit.Must(t, give(a, "x", end, a))
			testkit.Must(t, give(end, " ", b))
			testkit.Must(t, errors.Join(a.Close(), b.Close()))
		},
		"sent beside a call that waits": func(t *testing.T, end *os.File) {
			testkit.Must(t, give(end, context+accept(0)))
			testkit.Must(t, give(end, " ", end))
			testkit.Must(t, unix.Shutdown(int(end.Fd()), unix.SHUT_WR))
		},
		"as a data channel": func(t *testing.T, end *os.File) {
			testkit.Must(t, give(end, request("NewClient", `["127.0.0.1",%d]`, port)))
			testkit.Must(t, give(end, request("Handshake", "[1,1]"), end))
		},
		"in the queue of a data channel": func(t *testing.T, end *os.File) {
			a, b := testkit.SocketPair(t, unix.SOCK_STREAM)
			testkit.Must(t, give(a, "x", end, a))
			testkit.Must(t, give(end, context))
			testkit.Must(t, give(end, accept(1), b))
			testkit.Must(t, errors.Join(a.Close(), b.Close()))
		},
		"in the queue of a data channel, later": func(t *testing.T, end *os.File) {
			if !knowsPassRights(t) {
				t.Skip("this kernel has no SO_PASSRIGHTS (Linux 6.16)")
			}
			a, b := testkit.SocketPair(t, unix.SOCK_STREAM)
			testkit.Must(t, give(end, context))
			testkit.Must(t, give(end, accept(1), b))
			// tlsd takes an Accept's channel when it reads the call. The answer to the
			// next call shows that it has read the Accept.
			testkit.Must(t, give(end, backend))
			answered(t, end, `{"jsonrpc":"2.0","id":1,"result":"openssl"}`)
			if err := give(a, "x", end, a); !errors.Is(err, unix.EPERM) {
				t.Errorf("sending a descriptor into a data channel that tlsd "+
					"has taken: %v, want EPERM", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			idle := "1h" // so long that it ends no session in this test
			// A duplicate in the queue of a signal pair keeps the session alive until
			// the idle timeout, so this timeout must be short.
			if strings.Contains(name, "a signal pair") {
				idle = "2s"
			}
			d := testd.Start(t, "--spare=0", "--answer-timeout=1s",
				"--session-idle-timeout="+idle)
			conn := rawDial(t, d)
			end := duplicateOf(t, conn)
			testkit.Must(t, conn.Close())
			testkit.Must(t, unix.SetNonblock(int(end.Fd()), false))
			testkit.Must(t, give(end, backend))
			// The answer shows that a worker has the session.
			_, err := bufio.NewReaderSize(end, 16).ReadString('\n')
			testkit.Must(t, err)
			leave(t, end)
			testkit.Must(t, end.Close())
			workers(t, d, 0)
		})
	}
}
