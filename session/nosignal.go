//go:build !darwin

package session

import "golang.org/x/sys/unix"

// noSignal keeps a send to a caller that has closed its socket from raising SIGPIPE.
const noSignal = unix.MSG_NOSIGNAL
