package hostile

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testd"
)

// A log that cannot be written, or that nobody reads, costs log entries and nothing else. Sessions
// begin, work and end. Workers that die are replaced. The daemon stops in good order.
func TestALogThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port, _ := w.echo(t)
	for name, open := range map[string]func(t *testing.T) *os.File{
		"a full disk": func(t *testing.T) *os.File {
			f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			must(t, err)
			return f
		},
		"a pipe that nobody reads": func(t *testing.T) *os.File {
			r, f := fullPipe(t)
			t.Cleanup(func() { r.Close() })
			return f
		},
		"a pipe whose reader is gone": func(t *testing.T) *os.File {
			r, f, err := os.Pipe()
			must(t, err)
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
			// a crash has much to tell
			must(t, unix.Kill(workerOf(t, victim), unix.SIGSEGV))
			testd.Eventually(t, patience, "the crash is noticed", func() bool {
				_, err := victim.Backend(t.Context())
				return err != nil
			})
			serves(t, d)
			tk.works(t)
			must(t, c.Close())
			begin := time.Now()
			must(t, d.Stop(t))
			t.Logf("it stops within %v", time.Since(begin))
		})
	}
}

// fullPipe is a pipe that is full.
func fullPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	fd := int(w.Fd()) // which makes it blocking
	must(t, unix.SetNonblock(fd, true))
	for err == nil {
		_, err = unix.Write(fd, []byte("x"))
	}
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
	must(t, unix.SetNonblock(fd, false)) // the description is the daemon's, too
	return r, w
}

// A reader that comes back finds whole lines, the oldest first.
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
	must(t, d.Stop(t))
	f.Close()
	log := bytes.TrimLeft(<-text, "x")
	for _, entry := range []string{`"listening"`, `"session started","session":1,`,
		`"session started","session":2,`, `"stopped"`} {
		at := bytes.Index(log, []byte(entry))
		if at < 0 {
			t.Fatalf("%s is missing, or not in order:\n%s", entry, log)
		}
		log = log[at:]
	}
}
