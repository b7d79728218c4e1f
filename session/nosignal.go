//go:build !darwin

package session

import "golang.org/x/sys/unix"

// With noSignal, a send does not raise SIGPIPE if the caller has closed its socket.
const noSignal = unix.MSG_NOSIGNAL
