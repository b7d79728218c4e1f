//go:build !linux

package supervisor

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// threadAs returns an error: no thread has a user of its own.
func threadAs(uint32, uint32) error { return errors.ErrUnsupported }

// die sends the signal to the process.
func die(sig unix.Signal) { _ = unix.Kill(os.Getpid(), sig) }

// slack returns no number: the system has no timer slack.
func slack() string { return "not on this system" }

// seize returns an error: these tests trace processes only on Linux.
func seize(int) error { return errors.ErrUnsupported }

// holdAtItsEnd is never called, because seize fails.
func holdAtItsEnd(int) {}

// preempt returns an error: it is for the tests that trace.
func preempt(int) error { return errors.ErrUnsupported }
