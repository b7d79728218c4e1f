// Package soak runs tlsd for as long as it is told to, does everything to it that
// its callers, its peers and an administrator might, at random, and then looks whether
// anything is left: a process, a descriptor, a goroutine, a socket, a file, or memory.
//
//	go test ./test/soak -v -duration=10m [-seed=N] [-callers=N]
//
// Three daemons run side by side: one for each way to isolate, whose memory is looked at, and one that is
// restarted again and again, in either way. Callers play scenes (scenes_test.go), while others kill
// workers, callers and daemons and change the CA bundle (chaos_test.go).
//
// # When it fails
//
// A call may fail if the soak itself has caused that: it says so before it kills a worker or a
// daemon, and a scene that has to do with it is excused. Everything else is a failure: another error, a
// wrong byte, data that ends without having been complete, a call that does not end.
//
// The seed, which is printed, decides what scenes do; when things happen is the machine's decision.
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
	duration = flag.Duration("duration", 20*time.Second, "how long the callers go on")
	seed     = flag.Uint64("seed", rand.Uint64(), "decides what is done")
	callers  = flag.Int("callers", 3, "that play scenes at the same time, for each daemon")
)

// patience bounds a scene. None is expected to take nearly as long.
const patience = 2 * time.Minute

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
			killing  [2]time.Duration // at least and at most between two kills of workers
		}{
			{"session", []string{"--isolation=session"}, false, [2]time.Duration{100 * time.Millisecond, time.Second}},
			// Workers that die young are replaced ever more slowly.
			{"shared", []string{"--isolation=shared", "--workers=3"}, false, [2]time.Duration{4 * time.Second, 12 * time.Second}},
			{"restarted", []string{"--isolation=session"}, true, [2]time.Duration{time.Second, 5 * time.Second}},
		} {
			t.Run(kind.name, func(t *testing.T) {
				t.Parallel()
				a := newArena(t, *seed+uint64(i), kind.flags, kind.restarts, kind.killing)
				a.run()
				a.look()
			})
		}
	})
	goleak.VerifyNone(t, quiet)
}

const callerEnv = "SOAK_CALLER"

// playCaller is a caller in a process of its own, to be killed.
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
