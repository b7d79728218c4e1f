//go:build !linux

package rpc

// refuseDescriptors does nothing, because only Linux can make a channel refuse descriptors. It does
// not look for descriptors that wait already, so it returns false.
func refuseDescriptors(int) (some bool) { return false }
