//go:build !linux

package testd

import "syscall"

// dieWithParent does nothing on this system. If the test process dies, its child may go on.
func dieWithParent(*syscall.SysProcAttr) {}
