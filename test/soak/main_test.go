// Package soak runs tlsd for a given time. At random it does everything that callers, peers and an
// administrator might do. Then it checks that nothing is left: no process, descriptor, goroutine,
// socket or file, and no memory.
//
//	go test ./test/soak -v -duration=10m [-seed=N] [-callers=N]
//
// Three daemons run side by side. The first has isolation "session", and the second "shared". They
// are never restarted, and their memory is watched. The third is restarted again and again, with
// one isolation or the other. Callers play scenes (scenes_test.go). Meanwhile the soak kills
// workers, callers and the third daemon, and changes the CA bundle (chaos_test.go).
//
// # When it fails
//
// A call may fail if the soak itself is the cause. Before the soak kills a worker or restarts a
// daemon, it notes which scenes may fail now. These scenes are excused. Everything else is a
// failure: another error, a wrong byte, data that ends before it is complete, a call that does not
// end.
//
// The seed, which is printed, decides what scenes do. The machine decides when things happen.
package soak

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tlsd/internal/testd"
)

var (
	duration = flag.Duration("duration", 20*time.Second, "how long the callers go on at least")
	seed     = flag.Uint64("seed", rand.Uint64(), "decides what the scenes do")
	callers  = flag.Int("callers", 3, "how many callers each daemon has at the same time")
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(callerEnv); socket != "" {
		os.Exit(playCaller(socket))
	}
	flag.Parse()
	flag.Set("test.parallel", "3") // all daemons at the same time, on any machine
	testd.Main(m)
}

func TestSoak(t *testing.T) {
	t.Logf("seed %d, %v, %d callers for each daemon", *seed, *duration, *callers)
	quiet := goleak.IgnoreCurrent()
	t.Run("run", func(t *testing.T) {
		for i, kind := range []struct {
			name     string
			flags    []string
			restarts bool
			// the shortest and the longest time between two kills of workers
			killing [2]time.Duration
		}{
			{"session", []string{"--isolation=session"}, false,
				[2]time.Duration{100 * time.Millisecond, time.Second}},
			// Fewer kills, because tlsd replaces workers more and more slowly if they
			// end soon after their start.
			{"shared", []string{"--isolation=shared", "--workers=3"}, false,
				[2]time.Duration{4 * time.Second, 12 * time.Second}},
			{"restarted", []string{"--isolation=session"}, true,
				[2]time.Duration{time.Second, 5 * time.Second}},
		} {
			t.Run(kind.name, func(t *testing.T) {
				t.Parallel()
				a := newArena(t, *seed+uint64(i), kind.flags, kind.restarts,
					kind.killing)
				a.run()
				a.look()
			})
		}
	})
	goleak.VerifyNone(t, quiet)
}

const callerEnv = "SOAK_CALLER"

// playCaller is a caller in a process of its own. It sends its standard input to the daemon, prints
// "sent", and waits until the soak kills it.
func playCaller(socket string) int {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return 1 // the daemon is being restarted
	}
	go io.Copy(io.Discard, conn)
	io.Copy(conn, os.Stdin)
	fmt.Println("sent")
	select {}
}
