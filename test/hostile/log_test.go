package hostile

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testd"
	"tlsd/internal/testkit"
)

// If the log cannot be written, or nobody reads it, only log entries are lost. Sessions
// begin, work and end. Workers that die are replaced. The daemon stops without an error.
func TestALogThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port, _ := w.echo(t)
	for name, open := range map[string]func(t *testing.T) *os.File{
		"a full disk": func(t *testing.T) *os.File {
			f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			testkit.Must(t, err)
			return f
		},
		"a pipe that nobody reads": func(t *testing.T) *os.File {
			r, f := fullPipe(t)
			t.Cleanup(func() { r.Close() })
			return f
		},
		"a pipe whose reader is gone": func(t *testing.T) *os.File {
			r, f, err := os.Pipe()
			testkit.Must(t, err)
			r.Close()
			return f
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := open(t)
			defer f.Close()
			d := testd.StartWith(t, testd.Options{Stderr: f,
				Flags: []string{"--log-level=debug"}})
			c := d.Dial(t)
			tk := w.talk(t, c, port)
			for range 20 {
				serves(t, d)
			}
			victim := d.Dial(t)
			// the dump of a crash makes many log entries
			testkit.Must(t, unix.Kill(workerOf(t, victim), unix.SIGSEGV))
			testkit.Until(t, "a call of the killed worker's session fails",
				func() bool {
					_, err := victim.Backend(t.Context())
					return err != nil
				})
			serves(t, d)
			tk.works(t)
			testkit.Must(t, c.Close())
			begin := time.Now()
			testkit.Must(t, d.Stop(t))
			t.Logf("the daemon stopped within %v", time.Since(begin))
		})
	}
}

// fullPipe returns a pipe that is full of the letter x, so that a write to it blocks.
func fullPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	testkit.Must(t, err)
	fd := int(w.Fd()) // makes the descriptor blocking
	testkit.Must(t, unix.SetNonblock(fd, true))
	for err == nil {
		_, err = unix.Write(fd, []byte("x"))
	}
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
	// The daemon inherits fd with its flags, and the daemon's writes must block.
	testkit.Must(t, unix.SetNonblock(fd, false))
	return r, w
}

// If nobody reads the log for a time, tlsd keeps the entries. The next reader gets whole lines, the
// oldest first.
func TestALogThatIsReadAgain(t *testing.T) {
	t.Parallel()
	r, f := fullPipe(t)
	defer r.Close()
	defer f.Close()
	d := testd.StartWith(t, testd.Options{Stderr: f})
	serves(t, d)
	text := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(r)
		text <- all
	}()
	serves(t, d)
	testkit.Must(t, d.Stop(t))
	f.Close()
	log := bytes.TrimLeft(<-text, "x")
	for _, entry := range []string{`"listening"`, `"session started","session":1,`,
		`"session started","session":2,`, `"stopped"`} {
		at := bytes.Index(log, []byte(entry))
		if at < 0 {
			t.Fatalf("after the earlier entries the log has no %s; its rest:\n%s",
				entry, log)
		}
		log = log[at:]
	}
}
