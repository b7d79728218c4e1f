package tlsd

import (
	"crypto/tls"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tlsd/internal/testcert"
)

// What happens when the library itself goes wrong.

// faultyLibrary builds the libssl of testdata/fault.
func faultyLibrary(t *testing.T, flags ...string) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("needs a C compiler")
	}
	dir := shortDir(t)
	lib := filepath.Join(dir, "libfault.so")
	args := append([]string{"-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-shared", "-fPIC", "-o", lib}, flags...)
	out, err := exec.Command(cc, append(args, "testdata/fault/fault.c", "-Wl,--no-as-needed", "-l:libssl.so.3", "-l:libcrypto.so.3")...).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "cannot find -l") {
		t.Fatalf("%s", out)
	}
	if err != nil {
		t.Skipf("needs libssl.so.3 to link with: %s", out)
	}
	return lib
}

// quietServer is a server of TLS that sends nothing.
func quietServer(t *testing.T, cert *testcert.Cert) (port string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert.TLS()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(io.Discard, conn)
				conn.Close()
			}()
		}
	}()
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestFaultInTheLibraryIsToldAndHurtsNobodyElse(t *testing.T) {
	t.Parallel()
	cert := testcert.NewCA(t, "Test CA").Issue(t, testcert.Leaf{CN: "localhost", DNS: []string{"localhost"}})
	port := quietServer(t, cert)
	for name, tt := range map[string]struct{ flag, want string }{
		"crash": {"-DCRASH", "died of SIGSEGV in tls.Read"},
		"hang":  {"-DHANG", "was killed because it did not come back from the library for 500ms in tls.Read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sock := filepath.Join(shortDir(t), "s")
			startWith(t, nil, "", "--socket", sock, "--libssl", faultyLibrary(t, tt.flag), "--watchdog", "500ms")
			other, otherIn, _ := connect(t, sock)
			for range 2 {
				conn, in, _ := connect(t, sock)
				for _, line := range []string{
					`{"jsonrpc":"2.0","id":1,"method":"tls.NewClient","params":["localhost",` + port + `]}`,
					`{"jsonrpc":"2.0","id":2,"method":"tls.SetInsecureSkipVerify","params":[1,1]}`,
					`{"jsonrpc":"2.0","id":3,"method":"tls.Handshake","params":[1]}`,
				} {
					if got := exchange(t, conn, in, line); !strings.Contains(got, `"result"`) {
						t.Fatal(got)
					}
				}
				got := exchange(t, conn, in, `{"jsonrpc":"2.0","id":4,"method":"tls.Read","params":[1,10]}`)
				if !strings.Contains(got, `"id":null,"error":{"code":-32013,"message":"lost: the worker of this session `+tt.want+`"`) {
					t.Errorf("the caller is told %s", got)
				}
				if _, err := in.ReadByte(); err == nil {
					t.Error("the connection goes on")
				}
			}
			if got := exchange(t, other, otherIn, askBackend); !strings.Contains(got, `"result":"openssl"`) {
				t.Errorf("another session answers %s", got)
			}
		})
	}
}
