package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// connect connects to the socket at path. If the backlog of this socket is full, connect waits and
// tries again until ctx ends. The kernel returns EAGAIN in this case, because Go's sockets do not
// block.
func connect(ctx context.Context, path string) (*net.UnixConn, error) {
	const longest = 100 * time.Millisecond
	var d net.Dialer
	var full error
	for pause := time.Millisecond; ; pause = min(2*pause, longest) {
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		switch err = unwrapNet(err); {
		case errors.Is(err, syscall.EAGAIN):
			full = fmt.Errorf("the backlog of tlsd's socket is full: %w", err)
		case full != nil && ctx.Err() != nil:
			return nil, full
		default:
			return nil, err
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil, full
		}
	}
}
