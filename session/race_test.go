//go:build race

package session_test

// raceDetector says that sync.Pool drops things at random.
const raceDetector = true
