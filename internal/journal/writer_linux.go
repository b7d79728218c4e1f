package journal

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A Writer sends lines to the journal. Only one goroutine may call Write. Another may call Close.
type Writer struct {
	path string

	mu   sync.Mutex // guards the fields below; not held during a call that waits
	conn *net.UnixConn
	over bool // Close was called
}

// Open connects to the journal's socket.
func Open(path string) (*Writer, error) {
	conn, err := dial(path)
	if err != nil {
		return nil, err
	}
	return &Writer{path: path, conn: conn}, nil
}

func dial(path string) (*net.UnixConn, error) {
	return net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
}

// Close ends a Write that waits, and the connection.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	return w.conn.Close()
}

// use(nil) returns the current connection, even after Close. If conn is not nil, use(conn) makes
// conn the current connection, and returns it. But after Close, use(conn) closes conn and fails.
func (w *Writer) use(conn *net.UnixConn) (*net.UnixConn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.over && conn != nil:
		return nil, errors.Join(net.ErrClosed, conn.Close())
	case conn != nil:
		_ = w.conn.Close() // entries that were sent are not lost
		w.conn = conn
	}
	return w.conn, nil
}

// Write sends each line. It waits while the journal takes no entry. It returns the number of bytes
// of the lines that were sent.
func (w *Writer) Write(lines []byte) (int, error) {
	sent := 0
	for line := range bytes.Lines(lines) {
		if len(bytes.TrimSpace(line)) > 0 {
			if err := w.send(native(line)); err != nil {
				return sent, err
			}
		}
		sent += len(line)
	}
	return sent, nil
}

// send sends an entry. If the journal has been started again, it has a new socket. So after an
// error, send connects and sends once more.
func (w *Writer) send(entry []byte) error {
	conn, _ := w.use(nil)
	err := pass(conn, entry)
	if err == nil || errors.Is(err, net.ErrClosed) {
		return err
	}
	again, dialed := dial(w.path)
	if dialed != nil {
		return errors.Join(err, dialed)
	}
	if conn, err = w.use(again); err != nil {
		return err
	}
	return pass(conn, entry)
}

// pass sends an entry as a datagram. If the entry is too long for a datagram, pass sends a file
// with the entry.
func pass(conn *net.UnixConn, entry []byte) error {
	_, err := conn.Write(entry)
	if !errors.Is(err, unix.EMSGSIZE) && !errors.Is(err, unix.ENOBUFS) {
		return err
	}
	f, err := sealed(entry)
	if err != nil {
		return err
	}
	defer f.Close()
	return sendFile(conn, f)
}

// sendFile sends the descriptor of f, and no data. It calls sendmsg(2) itself, because WriteMsgUnix
// refuses a connected datagram socket.
func sendFile(conn *net.UnixConn, f *os.File) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	rights := unix.UnixRights(int(f.Fd()))
	var sent error
	err = raw.Write(func(fd uintptr) (done bool) {
		sent = unix.Sendmsg(int(fd), nil, rights, nil, unix.MSG_DONTWAIT)
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}

// sealed makes a file in memory (memfd) that nobody can change. The journal accepts only such a
// memfd.
func sealed(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("tlsd-entry", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "tlsd-entry")
	_, err = f.Write(content)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS,
			unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("an entry that is too long for a datagram: %w", err)
	}
	return f, nil
}

// Is says whether the file f is a stream that systemd has connected with the journal. The parameter
// stream is the value of JOURNAL_STREAM (systemd.exec(5)), which has the stream's device and inode.
// It is "" if the variable is not set.
func Is(f *os.File, stream string) bool {
	var st unix.Stat_t
	if stream == "" || unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	return stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
