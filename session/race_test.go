//go:build race

package session_test

// raceDetector says that the race detector is on. With it, sync.Pool drops elements at random.
const raceDetector = true
