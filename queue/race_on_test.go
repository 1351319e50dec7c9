//go:build race

package queue

// raceDetector says whether the tests were built with it.
const raceDetector = true
