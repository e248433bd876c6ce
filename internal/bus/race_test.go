//go:build race

package bus_test

// The race detector lets pools forget at random, so that allocations cannot be
// counted under it.
const raceDetector = true
