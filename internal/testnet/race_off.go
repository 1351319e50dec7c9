//go:build !race

package testnet

// raceDetector says whether the tests were built with it.
const raceDetector = false
