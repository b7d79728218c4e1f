//go:build darwin || freebsd

package client

import "golang.org/x/sys/unix"

func moreRights() bool { return unix.Issetugid() }
