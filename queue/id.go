package queue

import (
	"crypto/rand"
	"encoding/binary"
	"time"
)

// idDigits are in ASCII order, so that IDs sort by time; letters that read like digits are left out.
const idDigits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// NewID makes a queue ID of 16 letters and digits: 8 of time (milliseconds in 40 bits, which go
// round in 35 years) and 8 of chance.
func NewID(now time.Time) string {
	var b [8]byte
	rand.Read(b[:])
	ms, chance := uint64(now.UnixMilli()), binary.BigEndian.Uint64(b[:])
	id := make([]byte, 16)
	for i := range 8 {
		id[7-i] = idDigits[ms&31]
		id[15-i] = idDigits[chance&31]
		ms, chance = ms>>5, chance>>5
	}
	return string(id)
}
