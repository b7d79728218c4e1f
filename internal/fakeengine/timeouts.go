package fakeengine

import (
	"cmp"

	"tlsd/internal/testkit"
	"tlsd/session"
)

// Patient replaces the timeouts that are 0. The product's defaults of 10 s and 30 s would end calls
// that only a busy machine makes slow. Patient leaves three timeouts as they are: Accept and Read
// have none by default, and the tests of Close need its default of one second.
func Patient(t session.Timeouts) session.Timeouts {
	t.Connect = cmp.Or(t.Connect, testkit.Patience)
	t.Handshake = cmp.Or(t.Handshake, testkit.Patience)
	t.AcceptHandshake = cmp.Or(t.AcceptHandshake, testkit.Patience)
	t.Write = cmp.Or(t.Write, testkit.Patience)
	return t
}
