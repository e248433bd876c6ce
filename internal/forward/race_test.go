//go:build race

package forward

// raceDetector tells that sync.Pool forgets at random, and so allocates.
const raceDetector = true
