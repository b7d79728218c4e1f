//go:build race

package session_test

// raceDetector is true, because sync.Pool drops elements at random under the race detector.
const raceDetector = true
