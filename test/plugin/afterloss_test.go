package plugin

import (
	"os"
	"syscall"
	"testing"

	"tlsd/internal/testcert"
)

// After a loss new handles work, and trust what the script trusts.

// A loss is a way to lose a session, and the host's error.
type loss struct {
	name string
	lose func(t *testing.T, d *daemon)
	why  string
}

var losses = []loss{
	{"its worker is killed", func(t *testing.T,
		d *daemon) {
		killWorker(t, d, syscall.SIGKILL)
	},
		"the worker of this session was killed (SIGKILL)"},
	{"tlsd is started anew", func(t *testing.T, d *daemon) {
		// Open sessions keep the daemon only for a moment; see the test's flags.
		d.stop(syscall.SIGTERM) // with a status that says that there were some
		d.start(t)
	}, "the session has been ended, because tlsd was stopped"},
	{"tlsd is killed and started anew", func(t *testing.T, d *daemon) {
		worker := d.worker(t)
		d.stop(syscall.SIGKILL)
		awaitDeath(t, worker) // it finds out by itself
		d.start(t)
	}, "the session has been ended, because tlsd was stopped"},
}

// However a session is lost, the waiting call and each later call on an old handle say so. New
// handles work at once. The trust that the script has chosen holds for new handles; if it cannot
// hold, there are no new handles.
func TestAfterALossNewHandlesWorkAndTrustWhatTheScriptTrusts(t *testing.T) {
	t.Parallel()
	for _, isolation := range []string{"session", "shared"} {
		for _, l := range losses {
			t.Run(isolation+"/"+l.name, func(t *testing.T) {
				t.Parallel()
				d := startTLSD(t, "--isolation="+isolation, "--workers=1",
					"--drain-timeout=1s")
				ca, port := echo(t) // which no system's store knows
				h := startHost(t, d.env())
				lost := func(handle int) {
					t.Helper()
					h.send("Read", handle, 10).fails("tls.Read: handle ",
						": lost: "+l.why)
					h.send("Write", handle, []byte("a")).fails(
						"tls.Write: handle ", ": lost: "+l.why)
					h.send("Handshake", handle).fails("tls.Handshake: handle ",
						": lost: "+l.why)
					h.send("SetTimeout", handle,
						1).fails("tls.SetTimeout: handle ",
						": lost: "+l.why)
					h.send("PeerCertSubject",
						handle).fails("tls.PeerCertSubject: handle ",
						": lost: "+l.why)
					h.send("Close", handle).fails("tls.Close: handle ",
						": lost: "+l.why)
				}

				h.send("SetCaBundle", ca).gives(0, "")
				h.send("NewClient", "localhost", port).gives(1, "")
				h.send("Handshake", 1).gives(0, "")
				read := h.start("Read", 1, 10)
				// the Read is likely to wait by now; the result is the same if it
				// does not
				h.send("Write", 1, []byte{}).gives(0, "")
				l.lose(t, d)
				read.fails("tls.Read: handle 1: lost: " + l.why)
				lost(1)

				h.send("NewClient", "localhost", port).gives(2, "")
				h.send("Handshake", 2).gives(0, "") // by the CA bundle of before
				h.send("Write", 2, []byte("again")).gives(5, "")
				h.send("Read", 2, 10).reads("again")
				lost(1)

				// The bundle has gone meanwhile. Then there is no client, because a
				// client must not trust the system's CAs instead.
				if err := os.Rename(ca, ca+".away"); err != nil {
					t.Fatal(err)
				}
				l.lose(t, d) // while nobody calls
				for range 2 {
					h.send("NewClient", "localhost",
						port).fails("tls.SetCaBundle: ", ca, "no such file")
				}
				lost(2)
				h.send("Backend").gives(7, "openssl") // what trusts nobody works

				if err := os.Rename(ca+".away", ca); err != nil {
					t.Fatal(err)
				}
				h.send("NewClient", "localhost", port).gives(3, "")
				h.send("Handshake", 3).gives(0, "")

				// The present content of the file counts, and it is read again.
				other := testcert.NewCA(t, "Another CA")
				if err := os.Rename(other.File, ca); err != nil {
					t.Fatal(err)
				}
				l.lose(t, d)
				h.send("NewClient", "localhost", port).gives(4, "")
				h.send("Handshake", 4).fails("tls.Handshake: handle 4: ",
					"certificate", ca)
			})
		}
	}
}
