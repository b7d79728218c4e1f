package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tlsd/internal/testkit"
)

// A journal is a stand-in for systemd's journal. It is a socket that gets the entries that tlsd
// sends to the journal.
type journal struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func listen(t *testing.T, path string) *journal {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(testkit.Patience))
	return &journal{t, path, conn}
}

// start starts a journal, and opens a Writer that writes to it.
func start(t *testing.T) (*journal, *Writer) {
	t.Helper()
	j := listen(t, t.TempDir()+"/socket")
	w, err := Open(j.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return j, w
}

// next receives a datagram, and the file that may come with it.
func (j *journal) next() (entry []byte, file *os.File) {
	j.t.Helper()
	buf, oob := make([]byte, 1<<18), make([]byte, 64)
	n, oobn, _, _, err := j.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		j.t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) == 0 {
		return buf[:n], nil
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		j.t.Fatal(err)
	}
	file = os.NewFile(uintptr(fds[0]), "entry")
	j.t.Cleanup(func() { file.Close() })
	return buf[:n], file
}

// fields reads an entry as the journal does.
func fields(t *testing.T, entry []byte) map[string]string {
	t.Helper()
	got := map[string]string{}
	for rest := string(entry); rest != ""; {
		name, after, ok := strings.Cut(rest, "\n")
		if !ok || strings.Contains(name, "=") || len(after) < 9 {
			t.Fatalf("not a field with a length: %q", rest)
		}
		size := binary.LittleEndian.Uint64([]byte(after))
		if after = after[8:]; uint64(len(after)) <= size || after[size] != '\n' {
			t.Fatalf("%s has a wrong length: %q", name, rest)
		}
		if _, twice := got[name]; twice {
			t.Errorf("%s is there twice: %q", name, entry)
		}
		got[name], rest = after[:size], after[size+1:]
	}
	return got
}

// A line of the log in JSON becomes one entry: its text, its priority, and a field for each key.
func TestALineIsAnEntryWithPriorityAndFields(t *testing.T) {
	t.Parallel()
	j, w := start(t)
	for line, want := range map[string]map[string]string{
		`{"level":"info","ts":"2026-01-01T00:00:00Z","msg":"handshake","session":7,` +
			`"peer":"a:1","not-after":"x y","resumed":false}`: {
			"MESSAGE":  `handshake session=7 peer=a:1 not-after="x y" resumed=false`,
			"PRIORITY": "6", "SESSION": "7", "TLSD_PEER": "a:1",
			"TLSD_NOT_AFTER": "x y", "TLSD_RESUMED": "false"},
		`{"level":"info","logger":"audit","msg":"denied","uid":0,"gid":1,"pid":2,` +
			`"settings":["a","b"]}`: {
			"MESSAGE":  `audit: denied uid=0 gid=1 pid=2 settings=["a","b"]`,
			"PRIORITY": "5", "TLSD_LOGGER": "audit", "TLSD_UID": "0", "TLSD_GID": "1",
			"TLSD_PID": "2", "TLSD_SETTINGS": `["a","b"]`},
		`{"level":"warn","logger":"audit","msg":"key-log"}`: {
			"MESSAGE": "audit: key-log", "PRIORITY": "4", "TLSD_LOGGER": "audit"},
		`{"level":"debug","msg":"m"}`: {"MESSAGE": "m", "PRIORITY": "7"},
		`{"level":"error","msg":"m"}`: {"MESSAGE": "m", "PRIORITY": "3"},
		"not JSON\x1b[1m":             {"MESSAGE": `not JSON\x1b[1m`, "PRIORITY": "6"},
	} {
		want["SYSLOG_IDENTIFIER"] = "tlsd"
		if n, err := w.Write([]byte(line + "\n")); err != nil || n != len(line)+1 {
			t.Fatal("Write of a line returns", n, err)
		}
		entry, _ := j.next()
		if got := fields(t, entry); !maps.Equal(got, want) {
			t.Errorf("the line %s becomes the entry %q, want %q", line, got, want)
		}
	}
}

// A text that a worker or a peer has chosen cannot begin another field of the entry.
func TestNoTextBeginsAFieldOfItsOwn(t *testing.T) {
	t.Parallel()
	j, w := start(t)
	line := `{"level":"info","msg":"x\nPRIORITY=0\n","session":1,` +
		`"why":"a\nPRIORITY\n\u0001\u0000SESSION=2","PRIORITY":"0","priority":"0",` +
		`"MESSAGE":"m","_UID":"0","Session":"3","a\nSESSION=4\n":"5",` +
		`"said":"b session=6","` + strings.Repeat("k", 70) + `":"7","errno":8}` + "\n"
	if _, err := w.Write([]byte(line)); err != nil {
		t.Fatal(err)
	}
	entry, _ := j.next()
	got := fields(t, entry)
	for name, want := range map[string]string{"PRIORITY": "6", "SESSION": "1",
		"TLSD_WHY": "a\nPRIORITY\n\x01\x00SESSION=2", "TLSD_PRIORITY": "0",
		"TLSD_SAID": "b session=6", "TLSD_ERRNO": "8"} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if text := got["MESSAGE"]; strings.ContainsAny(text, "\n\x00") ||
		!strings.Contains(text, `said="b session=6"`) {
		t.Errorf("the text of the entry is %q; want one line", text)
	}
	for name := range got {
		if name != "MESSAGE" && name != "PRIORITY" && name != "SYSLOG_IDENTIFIER" &&
			name != "SESSION" && !strings.HasPrefix(name, "TLSD_") {
			t.Errorf("the line could set the field %q", name)
		}
	}
}

// An entry that is too long for a datagram comes in a sealed file.
func TestALongEntryComesInAFileThatNobodyCanChange(t *testing.T) {
	t.Parallel()
	j, w := start(t)
	if err := w.conn.SetWriteBuffer(1); err != nil { // the system's smallest buffer
		t.Fatal(err)
	}
	long := strings.Repeat("long ", 20000)
	lines := fmt.Sprintf(`{"level":"warn","msg":"short","why":%q}`+"\n"+`{"msg":"next"}`+"\n",
		long)
	if _, err := w.Write([]byte(lines)); err != nil {
		t.Fatal(err)
	}
	entry, file := j.next()
	if len(entry) > 0 || file == nil {
		t.Fatalf("the datagram has %d bytes, and its file is %v; want only a file",
			len(entry), file)
	}
	seals, err := unix.FcntlInt(file.Fd(), unix.F_GET_SEALS, 0)
	const want = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if err != nil || seals != want {
		t.Errorf("the file has the seals %#x, want %#x (%v)", seals, want, err)
	}
	content, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	got := fields(t, content)
	if got["TLSD_WHY"] != long || got["PRIORITY"] != "4" ||
		len(got["MESSAGE"]) > longestMessage+3 {
		t.Errorf("TLSD_WHY has %d bytes, the priority is %s, the text has %d bytes; want "+
			"all bytes of TLSD_WHY, the priority 4, and a text that was cut",
			len(got["TLSD_WHY"]), got["PRIORITY"], len(got["MESSAGE"]))
	}
	if entry, _ := j.next(); fields(t, entry)["MESSAGE"] != "next" {
		t.Errorf("the entry after the long one is %q; want the text next", entry)
	}
}

// If the journal has stopped reading, Write waits. Close ends this wait.
func TestAWriteToAStuckJournalWaitsUntilClose(t *testing.T) {
	t.Parallel()
	const entries = 2000 // more than fit into a socket's queue
	j, w := start(t)
	written := make(chan error, 1)
	go func() {
		_, err := w.Write([]byte(strings.Repeat(`{"msg":"m"}`+"\n", entries)))
		written <- err
	}()
	for i := range entries / 2 {
		if entry, _ := j.next(); fields(t, entry)["MESSAGE"] != "m" {
			t.Fatalf("entry %d is %q", i, entry)
		}
	}
	select {
	case err := <-written:
		t.Fatalf("Write has returned (%v), although half of the entries are not read yet: "+
			"they fit into the socket's queue, so the test needs more entries", err)
	default:
	}
	w.Close()
	if err := <-written; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close, Write returns %v; want net.ErrClosed", err)
	}
}

// While no journal runs, entries are lost. A journal that is started later gets the entries from
// then on.
func TestAJournalThatIsStartedAgainGetsTheNextEntry(t *testing.T) {
	t.Parallel()
	j, w := start(t)
	j.conn.Close()
	os.Remove(j.path)
	if n, err := w.Write([]byte("lost\n")); err == nil || n != 0 {
		t.Errorf("without a journal, Write returns %d, %v; want 0 and an error", n, err)
	}
	again := listen(t, j.path)
	if _, err := w.Write([]byte("next\n")); err != nil {
		t.Fatal(err)
	}
	if entry, _ := again.next(); fields(t, entry)["MESSAGE"] != "next" {
		t.Errorf("the new journal gets the entry %q; want the text next", entry)
	}
	if _, err := Open(j.path + "/nowhere"); err == nil {
		t.Error("a socket that is not there can be opened")
	}
}

// The function Is says whether a file is the journal's stream. It compares the device and the inode
// of the file with those in the variable JOURNAL_STREAM.
func TestTheStreamOfTheJournalIsKnown(t *testing.T) {
	t.Parallel()
	r, f, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	right := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	for stream, want := range map[string]bool{right: true, "": false, right + "1": false,
		"0:0": false, "x": false} {
		if Is(f, stream) != want {
			t.Errorf("JOURNAL_STREAM=%s: Is returns %v; want %v", stream, !want, want)
		}
	}
}
