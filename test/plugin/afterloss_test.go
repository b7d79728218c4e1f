package plugin

import (
	"os"
	"syscall"
	"testing"

	"tlsd/internal/testcert"
)

// After a loss new handles work, and trust what the script trusts.

// A loss is an event that ends a session.
type loss struct {
	name string
	lose func(t *testing.T, d *daemon) // makes the event happen
	why  string                        // the reason in the errors of later calls
}

var losses = []loss{
	{"its worker is killed", func(t *testing.T,
		d *daemon) {
		killWorker(t, d, syscall.SIGKILL)
	},
		"the worker of this session was killed (SIGKILL)"},
	{"tlsd is started anew", func(t *testing.T, d *daemon) {
		// tlsd waits for open sessions for 1 s (--drain-timeout). Then it ends them, and
		// exits with an error. So the result of stop is not checked.
		d.stop(syscall.SIGTERM)
		d.start(t)
	}, "the session has been ended, because tlsd was stopped"},
	{"tlsd is killed and started anew", func(t *testing.T, d *daemon) {
		worker := d.worker(t)
		d.stop(syscall.SIGKILL)
		awaitDeath(t, worker) // the worker sees that tlsd has ended, and exits
		d.start(t)
	}, "the session has been ended, because tlsd was stopped"},
}

// If a session is lost, the call that waits fails, and so does each later call on the session's
// handles. The errors have the reason. New handles work at once, and trust the CA bundle that the
// script has set. If the bundle cannot be read, tls.NewClient fails.
func TestAfterALossNewHandlesWorkAndTrustWhatTheScriptTrusts(t *testing.T) {
	t.Parallel()
	for _, isolation := range []string{"session", "shared"} {
		for _, l := range losses {
			t.Run(isolation+"/"+l.name, func(t *testing.T) {
				t.Parallel()
				d := startTLSD(t, "--isolation="+isolation, "--workers=1",
					"--drain-timeout=1s")
				ca, port := echo(t) // the system's store does not have this CA
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
				// When this Write has its answer, the Read probably waits. If the
				// Read begins only after the loss, it must fail in the same way.
				h.send("Write", 1, []byte{}).gives(0, "")
				l.lose(t, d)
				read.fails("tls.Read: handle 1: lost: " + l.why)
				lost(1)

				h.send("NewClient", "localhost", port).gives(2, "")
				h.send("Handshake", 2).gives(0, "") // with the CA bundle set above
				h.send("Write", 2, []byte("again")).gives(5, "")
				h.send("Read", 2, 10).reads("again")
				lost(1)

				// The next session finds no file of the CA bundle. NewClient must
				// fail: a client must not trust the system's CAs instead.
				if err := os.Rename(ca, ca+".away"); err != nil {
					t.Fatal(err)
				}
				l.lose(t, d) // while no call waits
				for range 2 {
					h.send("NewClient", "localhost",
						port).fails("tls.SetCaBundle: ", ca, "no such file")
				}
				lost(2)
				// a call that verifies no peer works
				h.send("Backend").gives(7, "openssl")

				if err := os.Rename(ca+".away", ca); err != nil {
					t.Fatal(err)
				}
				h.send("NewClient", "localhost", port).gives(3, "")
				h.send("Handshake", 3).gives(0, "")

				// Each new session reads the file again, and trusts its present
				// content.
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
