package session_test

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

// slowName returns a new name whose look-up does not end: TestMain's resolver never answers. So no
// test asks a real name server.
func slowName() string { return fmt.Sprintf("slow%d.invalid", names.Add(1)) }

var names, lookups atomic.Int32 // how many names were made, and how many look-ups have begun

func TestMain(m *testing.M) {
	net.DefaultResolver = &net.Resolver{PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			lookups.Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		}}
	goleak.VerifyTestMain(m)
}
