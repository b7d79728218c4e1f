//go:build !darwin

package session

import "golang.org/x/sys/unix"

// noSignal keeps a send to a caller that is gone from raising SIGPIPE.
const noSignal = unix.MSG_NOSIGNAL
