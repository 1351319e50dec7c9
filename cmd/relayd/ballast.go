package main

import "runtime"

// ballastBytes are counted as live by the garbage collector and never touched, so they take no memory
// of the machine. It runs when the heap has doubled. That of a relay that is not busy is about 4 MiB, so that
// with no more it would run every few dozen messages, up to a fifth of the work of each. A collector that runs
// after a multiple of the heap would do as well, but not with a long queue in memory.
const ballastBytes = 16 << 20

// carryBallast allocates the ballast and returns what is to be called at the end.
func carryBallast() (drop func()) {
	ballast := make([]byte, ballastBytes)
	return func() { runtime.KeepAlive(ballast) }
}
