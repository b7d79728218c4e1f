//go:build !linux

package rpc

// refuseDescriptors does nothing and finds nothing. Only Linux can make a channel refuse
// descriptors.
func refuseDescriptors(int) (some bool) { return false }
