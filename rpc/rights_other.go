//go:build !linux

package rpc

// refuseDescriptors has a channel take no descriptors. Only Linux can do that.
func refuseDescriptors(int) (some bool) { return false }
