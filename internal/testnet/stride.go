package testnet

import "os"

// Stride is n where only every nth of many like cases is to be tried: under the race detector, which
// makes each several times as dear, unless RELAYD_FULL=1. Else it is 1. What is left out then is for
// the script check to run without it.
func Stride(n int) int {
	if raceDetector && os.Getenv("RELAYD_FULL") != "1" {
		return n
	}
	return 1
}
