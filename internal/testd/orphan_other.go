//go:build !linux

package testd

import "syscall"

// dieWithParent does nothing: a process may outlive a test that dies.
func dieWithParent(*syscall.SysProcAttr) {}
