package supervisor

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testkit"
)

// umask is the lock for the umask of the process, which Listen changes for a moment. So only one
// test at a time may create a socket.
var umask sync.Mutex

// listenAt calls Listen while it holds the lock umask.
func listenAt(path string, mode fs.FileMode) (*Socket, error) {
	umask.Lock()
	defer umask.Unlock()
	return Listen(path, mode)
}

// If the path has a file that is not the socket of a dead daemon, Listen fails. It does not touch
// the file, and the error says what the file is.
func TestAnotherFileAtThePathIsNamedAndKept(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		put  func(t *testing.T, path string)
		want string
	}{
		{"file", func(t *testing.T, path string) {
			testkit.Must(t, os.WriteFile(path, []byte("precious"), 0o600))
		}, "is a file, not a socket"},
		{"directory", func(t *testing.T, path string) {
			testkit.Must(t, os.Mkdir(path, 0o700))
		}, "is a directory, not a socket"},
		{"symbolic link", func(t *testing.T, path string) {
			testkit.Must(t, os.Symlink("elsewhere", path))
		}, "is a symbolic link, not a socket"},
		{"pipe", func(t *testing.T, path string) {
			testkit.Must(t, unix.Mkfifo(path, 0o600))
		}, "is a named pipe, not a socket"},
		{"live socket without lock", func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			testkit.Must(t, err)
			t.Cleanup(func() { l.Close() })
		}, "another tlsd is serving"},
		{"socket of another type", func(t *testing.T, path string) {
			c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path,
				Net: "unixgram"})
			testkit.Must(t, err)
			t.Cleanup(func() { c.Close() })
		}, "a socket of another type"},
		{"lock file is a link", func(t *testing.T, path string) {
			testkit.Must(t, os.Symlink("elsewhere", path+".lock"))
		}, ".lock, which is a symbolic link; remove it"},
		{"lock file is a pipe", func(t *testing.T, path string) {
			testkit.Must(t, unix.Mkfifo(path+".lock", 0o600))
		}, "is not a regular file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(testkit.Dir(t), "s")
			tt.put(t, path)
			before, _ := os.Lstat(path)
			s, err := listenAt(path, 0o600)
			if err == nil {
				s.Close()
				t.Fatal("Listen succeeded; want an error, and the file kept")
			}
			if !strings.Contains(err.Error(), tt.want) ||
				!strings.Contains(err.Error(), path) {
				t.Errorf("the error is %q; want the path and %q", err, tt.want)
			}
			after, _ := os.Lstat(path)
			if before != nil && !os.SameFile(before, after) {
				t.Error("Listen has removed or replaced the file at the path")
			}
		})
	}
}

// If no socket can exist at a path, the error of Listen says why.
func TestImpossiblePathsAreExplained(t *testing.T) {
	t.Parallel()
	dir := testkit.Dir(t)
	long := filepath.Join(dir, strings.Repeat("x", maxPath-len(dir)))
	tests := []struct{ name, path, want string }{
		{"empty", "", "empty"},
		{"abstract", "@tlsd", "abstract"},
		{"too long", long, "has at most 107 bytes, this one has 108"},
		{"no directory", dir + "/none/s", "there is no directory " + dir + "/none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := listenAt(tt.path, 0o600)
			if err == nil {
				s.Close()
				t.Fatal("Listen succeeded; no socket can exist at this path")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %q; want %q in it", err, tt.want)
			}
		})
	}
	s, err := listenAt(long[:maxPath], 0o600)
	testkit.Must(t, err)
	s.Remove()
	s.Close()
}

// The socket file gets exactly the mode that the caller of Listen wants.
func TestSocketHasItsMode(t *testing.T) {
	t.Parallel()
	for _, mode := range []fs.FileMode{0o600, 0o660, 0o666, 0o777, 0} {
		path := filepath.Join(testkit.Dir(t), "s")
		s, err := listenAt(path, mode)
		testkit.Must(t, err)
		info, err := os.Lstat(path)
		testkit.Must(t, err)
		if got := info.Mode().Perm(); got != mode {
			t.Errorf("the socket has the mode %v; want %v", got, mode)
		}
		s.Remove()
		s.Close()
	}
}

// GiveTo gives the socket to a group and changes its mode. It changes no other file that has taken
// the socket's place.
func TestSocketIsGivenToAGroup(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testkit.Dir(t), "s")
	s, err := listenAt(path, 0o600)
	testkit.Must(t, err)
	defer s.Close()
	const gid = 61777
	if err := s.GiveTo(gid, 0o660); os.Getuid() != 0 {
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("GiveTo returns %v to a user who may not give files away; want "+
				"ErrPermission", err)
		}
		return
	} else if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	testkit.Must(t, err)
	if st := info.Sys().(*syscall.Stat_t); st.Gid != gid || info.Mode().Perm() != 0o660 ||
		st.Uid != 0 {
		t.Errorf("the socket has user %d, group %d and mode %v; want 0, %d and 0660",
			st.Uid, st.Gid, info.Mode(), gid)
	}
	testkit.Must(t, os.Remove(path))
	testkit.Must(t, os.WriteFile(path, nil, 0o600))
	if err := s.GiveTo(gid, 0o660); err == nil ||
		!strings.Contains(err.Error(), "has been replaced") {
		t.Errorf("a file has replaced the socket, and GiveTo returns %v; want an error "+
			"that says so", err)
	}
	s.Remove()
}

// The socket of a daemon that has died does not keep a new daemon from listening at its path.
func TestStaleSocketIsReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testkit.Dir(t), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	testkit.Must(t, err)
	dead.SetUnlinkOnClose(false)
	dead.Close()

	s, err := listenAt(path, 0o600)
	testkit.Must(t, err)
	defer s.Close()
	c, err := net.Dial("unix", path)
	testkit.Must(t, err)
	c.Close()
}

// If several daemons start with the same path, one gets the path. The others are told that another
// tlsd is serving.
func TestOneOfManyGetsThePath(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testkit.Dir(t), "s")
	const n = 8
	sockets, errs := make([]*Socket, n), make([]error, n)
	var start, done sync.WaitGroup
	start.Add(1)
	for i := range n {
		done.Go(func() { start.Wait(); sockets[i], errs[i] = Listen(path, 0o600) })
	}
	umask.Lock()
	start.Done()
	done.Wait()
	umask.Unlock()
	won := 0
	for i, s := range sockets {
		if s != nil {
			won++
			defer s.Close()
		} else if !strings.Contains(errs[i].Error(), "another tlsd is serving") {
			t.Errorf("Listen tells a daemon that did not get the path %q; want "+
				"\"another tlsd is serving\"", errs[i])
		}
	}
	if won != 1 {
		t.Fatalf("%d daemons got the path; want 1", won)
	}
	c, err := net.Dial("unix", path)
	testkit.Must(t, err)
	c.Close()
}

// Remove removes the daemon's own socket, and no other file that has taken its place.
func TestRemoveTakesOnlyItsOwnSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testkit.Dir(t), "s")
	s, err := listenAt(path, 0o600)
	testkit.Must(t, err)
	defer s.Close()
	testkit.Must(t, os.Rename(path, path+".old"))
	testkit.Must(t, os.WriteFile(path, []byte("somebody else's"), 0o600))
	testkit.Must(t, s.Remove())
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the other file at the path is gone: %v", err)
	}
	testkit.Must(t, os.Remove(path))

	// The path is free for the next daemon, although the old one still listens.
	next, err := listenAt(path, 0o600)
	testkit.Must(t, err)
	defer next.Close()
	testkit.Must(t, next.Remove())
	testkit.Must(t, next.Remove())
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Remove has left the daemon's own socket: %v", err)
	}
}

// acceptWaiting accepts a caller that has connected already, even after the deadline of the socket.
// If no caller has connected, acceptWaiting returns at once.
func TestWaitingCallersAreAcceptedWithoutWaiting(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testkit.Dir(t), "s")
	s, err := listenAt(path, 0o600)
	testkit.Must(t, err)
	defer s.Close()
	c, err := net.Dial("unix", path)
	testkit.Must(t, err)
	defer c.Close()
	s.SetDeadline(time.Unix(1, 0))

	conn, err := s.acceptWaiting()
	if conn == nil || err != nil {
		t.Fatalf("a caller waits, and acceptWaiting returns %v, %v; want its connection",
			conn, err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Errorf("the accepted connection does not work: %v", err)
	}
	if conn, err := s.acceptWaiting(); conn != nil || err != nil {
		t.Errorf("no caller waits, and acceptWaiting returns %v, %v; want nil, nil", conn,
			err)
	}
}

// If another daemon still has the path, Listen waits for a moment. If the path becomes free, Listen
// succeeds.
func TestPathThatIsFreeInAMomentIsTaken(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testkit.Dir(t), "s")
	lock, err := takeLock(path)
	testkit.Must(t, err)
	done := make(chan error, 1)
	go func() {
		umask.Lock()
		defer umask.Unlock()
		s, err := listenWithin(testkit.Patience, path, 0o600)
		if err == nil {
			s.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		t.Errorf("the path is in use, and Listen does not wait: %v", err)
	case <-time.After(busyTimeout / 5): // the path is in use for this time, or longer
		lock.Close()
		testkit.Must(t, <-done)
	}
}
