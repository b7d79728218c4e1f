package supervisor

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"tlsd/internal/confine"
	"tlsd/internal/handoff"
	"tlsd/internal/testkit"
	"tlsd/internal/vitals"
)

// The supervisor starts its own program as a worker. In these tests the program is the test binary.
// As a worker, the test binary carries out each line that a caller sends (playSession).

func TestMain(m *testing.M) {
	if os.Args[0] == handoff.Arg0 {
		os.Exit(playWorker())
	}
	if path := os.Getenv("DIAL_AND_ASK"); path != "" {
		os.Exit(dialAndAsk(path))
	}
	if pid := os.Getenv("TRACE"); pid != "" {
		os.Exit(trace(pid))
	}
	goleak.VerifyTestMain(m)
}

// workerPlay is the configuration of the test binary as a worker.
type workerPlay struct {
	ExitAtStart   bool // the worker exits before it is ready
	NeverReady    bool
	NeverReadyFor int    // workers of this user are never ready; 0 is no user
	LogAtStart    string // a text that the worker writes to standard error
	Report        handoff.Ready
	Disobey       bool              // orders to end a session have no effect
	Describes     handoff.Described // the answer to each question about a session
}

// playWorker is the main function of the test binary as a worker. It returns the exit status.
func playWorker() int {
	signal.Ignore(unix.SIGTERM, unix.SIGPIPE)
	ch, err := handoff.Open()
	if err != nil {
		return 3
	}
	page, err := vitals.Open()
	if err != nil {
		return 7
	}
	var first handoff.ToWorker
	if err := ch.Receive(&first); err != nil {
		return 4
	}
	var play workerPlay
	if err := json.Unmarshal(first.Config, &play); err != nil {
		return 5
	}
	if first.As != nil {
		if err := confine.Measures(nil).Become(*first.As); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 9
		}
	}
	fmt.Fprint(os.Stderr, play.LogAtStart)
	if play.ExitAtStart {
		return 6
	}
	if !play.NeverReady && (play.NeverReadyFor == 0 || play.NeverReadyFor != os.Getuid()) {
		ch.Send(handoff.FromWorker{Ready: &play.Report}, nil)
	}
	var mu sync.Mutex
	open := map[*net.UnixConn]bool{}
	byNumber := map[uint64]*net.UnixConn{}
	var serving sync.WaitGroup
	for {
		var msg handoff.ToWorker
		conn, err := ch.ReceiveConn(&msg)
		if err != nil {
			mu.Lock()
			for c := range open {
				c.Close()
			}
			mu.Unlock()
			serving.Wait()
			return 0
		}
		if playOrder(ch, play, msg) {
			continue
		}
		if msg.End != nil {
			mu.Lock()
			if conn := byNumber[msg.End.Number]; conn != nil && !play.Disobey {
				fmt.Fprintln(conn, "told:", msg.End.Reason)
				unix.Shutdown(fdOf(conn), unix.SHUT_RDWR)
			}
			mu.Unlock()
			continue
		}
		mu.Lock()
		byNumber[msg.Session.Number] = conn
		open[conn] = true
		mu.Unlock()
		serving.Go(func() {
			notes, err := page.Session(msg.Session.Slot)
			if err != nil {
				os.Exit(8)
			}
			playSession(ch, conn, page, notes)
			conn.Close()
			ended := handoff.Ended{Number: msg.Session.Number}
			ch.Send(handoff.FromWorker{Ended: &ended}, nil)
		})
	}
}

// playOrder carries out a ping, a question about a session, or a new log level. It returns false
// for a message that begins or ends a session.
func playOrder(ch *handoff.Conn, play workerPlay, msg handoff.ToWorker) bool {
	switch {
	case msg.Ping != 0:
		ch.Send(handoff.FromWorker{Pong: msg.Ping}, nil)
	case msg.Describe != 0:
		d := play.Describes
		d.Number = msg.Describe
		ch.Send(handoff.FromWorker{Described: &d}, nil)
	case msg.LogLevel != "":
		const entry = `{"level":"info","msg":"the level is %s"}` + "\n"
		fmt.Fprintf(os.Stderr, entry, msg.LogLevel)
	default:
		return false
	}
	return true
}

// fdOf is the descriptor of an open connection.
func fdOf(conn *net.UnixConn) (fd int) {
	raw, err := conn.SyscallConn()
	if err == nil {
		raw.Control(func(n uintptr) { fd = int(n) })
	}
	return fd
}

// playSession carries out the lines of one session, until the caller closes its connection or says
// "bye".
func playSession(ch *handoff.Conn, conn *net.UnixConn, page *vitals.Page, notes *vitals.Session) {
	in := bufio.NewScanner(conn)
	for in.Scan() {
		switch in.Text() {
		case "who":
			groups, _ := os.Getgroups()
			sid, _ := unix.Getsid(0)
			fmt.Fprintf(conn, "pid=%d uid=%d gid=%d groups=%v session=%t\n",
				os.Getpid(), os.Getuid(), os.Getgid(), groups, sid == os.Getpid())
		case "files":
			entries, _ := os.ReadDir("/proc/self/fd")
			var names []string
			for _, e := range entries {
				if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
					names = append(names, e.Name()+":"+to)
				}
			}
			fmt.Fprintln(conn, strings.Join(names, " "))
		case "environment":
			fmt.Fprintln(conn, strings.Join(os.Environ(), " "))
		case "slack": // the timer slack of this thread
			fmt.Fprintln(conn, slack())
		case "describe": // an answer without a question
			ch.Send(handoff.FromWorker{Described: &handoff.Described{Number: 1}}, nil)
		case "count":
			page.Count(vitals.BytesIn, 5)
			page.Count(vitals.Connections, 2)
			page.Count(vitals.Handshakes(true, 0), 1)
			page.Count(vitals.BucketOf(20*time.Millisecond), 1)
			page.Count(vitals.HandshakeTime, 20000)
			fmt.Fprintln(conn, "counted")
		case "count down":
			page.Count(vitals.BytesIn, -1)
			page.Count(vitals.Connections, -7)
			fmt.Fprintln(conn, "counted")
		case "lie":
			for c := range vitals.Counter(vitals.NumCounters) {
				page.Count(c, 1<<62)
			}
			fmt.Fprintln(conn, "lied")
		case "bye":
			return
		case "talk": // answers without a ping, for ever
			for {
				ch.Send(handoff.FromWorker{Pong: 1}, nil)
			}
		case "garbage":
			in.Scan()
			seed, _ := strconv.Atoi(in.Text())
			sendGarbage(uint64(seed))
			fmt.Fprintln(conn, "said")
		case "ready again":
			ch.Send(handoff.FromWorker{Ready: &handoff.Ready{}}, nil)
		case "nothing":
			ch.Send(handoff.FromWorker{}, nil)
		case "nonsense":
			ch.Send([]string{}, nil)
		case "crash":
			panic("crash")
		case "crash in a crowd": // the dump does not fit into a pipe
			for range 1000 {
				go func() { select {} }()
			}
			notes.Calling("tls.Read", 3)
			die(unix.SIGSEGV)
		case "abort", "segv", "kill", "exit": // the worker dies during a Read
			notes.Calling("tls.Read", 3)
			fmt.Fprintln(conn, "now")
			switch in.Text() {
			case "abort":
				die(unix.SIGABRT)
			case "segv":
				die(unix.SIGSEGV)
			case "kill":
				unix.Kill(os.Getpid(), unix.SIGKILL)
			case "exit":
				os.Exit(77)
			}
		case "inside": // the worker dies in the library, in a Write, while a Read waits
			notes.Calling("tls.Read", 3)
			page.Enter(1, "tls.Write", 0)
			panic("inside")
		case "freeze":
			notes.Calling("tls.Read", 3)
			unix.Kill(os.Getpid(), unix.SIGSTOP)
		case "stuck":
			page.Enter(1, "tls.Write", 0)
		case "busy": // enters the library again and again, each time for a moment
			go func() {
				for {
					page.Enter(1, "tls.Write", 0)
					time.Sleep(time.Millisecond)
					page.Leave(1)
				}
			}()
		case "half": // the worker dies while it writes an answer
			notes.Calling("tls.Read", 3)
			notes.Writing()
			fmt.Fprint(conn, `{"jsonrpc":"2.0","id":1,"res`)
			panic("half")
		case "fill": // the worker dies when no answer fits in the caller's socket any more
			var err error
			for err == nil {
				_, err = unix.Write(fdOf(conn), []byte("an answer\n"))
			}
			if err == unix.EAGAIN { // else the worker lives, and the test fails
				unix.Kill(os.Getpid(), unix.SIGKILL)
			}
		case "whole": // the worker dies after it has written an answer
			notes.Writing()
			fmt.Fprint(conn, "whole\n")
			notes.Written()
			panic("whole")
		}
	}
}

// sendGarbage writes random bytes and descriptors into the worker's channel, as an attacker that
// has taken over the worker can do. Package handoff would write only good messages, so sendGarbage
// does not use it.
func sendGarbage(seed uint64) {
	channel := -1
	for fd := 3; fd < 64; fd++ {
		if typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil &&
			typ == unix.SOCK_SEQPACKET {
			channel = fd
		}
	}
	r := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		var text, rights []byte
		switch r.IntN(9) {
		case 0:
			text = make([]byte, 1+r.IntN(300))
			for i := range text {
				text[i] = byte(r.Uint32())
			}
		case 1:
			text = make([]byte, handoff.MaxMessage+1)
		case 2: // the deepest possible message
			text = bytes.Repeat([]byte("["), handoff.MaxMessage)
		case 3:
			text = fmt.Appendf(nil, `{"ended":{"number":%d,"notTaken":true,"error":"\u001b[2J\n"}}`, r.Uint64()>>r.IntN(64))
		case 4:
			text = fmt.Appendf(nil, `{"audit":{"session":%d,"event":{"name":"\n\u202e"},"missed":18446744073709551615}}`, 1+r.IntN(4))
		case 5:
			text, rights = []byte(`{"pong":18446744073709551615}`), unix.UnixRights(0, 1, 2, 0, 1, 2, 0, 1, 2, channel)
		case 6:
			text = []byte(`{"pong":-1}`)
		case 7:
			text = []byte(`{"ready":{"path":"/proc/self/fd/0","confinement":{"\u0000":"\u0007"}},"ended":{"number":1}}`)
		case 8:
			text = []byte(`{"unfit":"\u001b]0;\u0007","ended":null,"audit":null}`)
		}
		// After most of these messages the supervisor kills the worker, and reads no
		// further message. So nine of ten are left out. But all messages that begin with
		// ended or audit, or that have descriptors, are sent.
		if k := r.IntN(10); k > 0 && rights == nil && !bytes.HasPrefix(text, []byte(`{"ended"`)) && !bytes.HasPrefix(text, []byte(`{"audit"`)) {
			continue
		}
		// The send fails if the supervisor has closed the channel.
		unix.Sendmsg(channel, text, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
}

// dialAndAsk is the main function of the test binary as a caller. It asks "who", prints the answer,
// and returns the exit status.
func dialAndAsk(path string) int {
	conn, err := net.DialTimeout("unix", path, testkit.Patience)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Fprintln(conn, "who")
	line, _ := bufio.NewReader(conn).ReadString('\n')
	fmt.Print(line)
	return 0
}

// trace is the main function of the test binary as a debugger. It traces the process that has this
// pid, until the debugger's standard input ends.
func trace(pid string) int {
	runtime.LockOSThread()
	n, err := strconv.Atoi(pid)
	if err == nil {
		err = seize(n)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go func() {
		os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
	fmt.Println("traced")
	holdAtItsEnd(n)
	return 0
}
