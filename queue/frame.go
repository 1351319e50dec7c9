package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// A segment is a header and frames one after another; what follows the last frame is zeros that
// were written beforehand, or nothing. A frame is
//
//	 0  magic     4 octets, by which whole frames are found again behind a damaged one
//	 4  kind      1
//	 5  zero      3
//	 8  head      4  length of the envelope (or ID) in octets
//	12  body      4  length of the body
//	16  head CRC  4  CRC32C over the salt, the octets 4 to 15 and the envelope
//	20  body CRC  4  CRC32C over the salt and the body
//	24  envelope, body
//
// all numbers in little endian. The salt is random for each segment: whoever writes a message
// cannot put a frame into it that is taken for one when the frame around it is damaged. Envelope
// and body are summed apart, so that the start-up scan need not read bodies.
const (
	frameSize = 24
	magic     = 0xF1_5A_1E_D7
	maxHead   = 64 << 20
	maxBody   = 1 << 20
)

// Kinds of frames. The latest of an ID counts; a message is over with its kindDone.
const (
	kindMessage  = 1 // envelope and body
	kindLarge    = 2 // envelope; the body is a file of its own
	kindEnvelope = 3 // envelope that replaces that of an earlier frame
	kindDone     = 4 // ID
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A frame is what stands in a segment, decoded as far as its sizes.
type frame struct {
	kind       byte
	head, body uint32
	headCRC    uint32
	bodyCRC    uint32
}

func (f frame) size() int64 { return frameSize + int64(f.head) + int64(f.body) }

// appendFrame appends a whole frame.
func appendFrame(dst []byte, salt uint32, kind byte, head, body []byte) []byte {
	start := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, magic)
	dst = append(dst, kind, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(head)))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(body)))
	sum := crc32.Update(salt, castagnoli, dst[start+4:start+16])
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Update(sum, castagnoli, head))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Update(salt, castagnoli, body))
	return append(append(dst, head...), body...)
}

var (
	errNoFrame  = errors.New("no frame begins here")
	errBadFrame = errors.New("the frame is damaged")
)

// parseFrame decodes the first octets of a frame. Its sums are not checked yet.
func parseFrame(b []byte) (frame, error) {
	if len(b) < frameSize || binary.LittleEndian.Uint32(b) != magic {
		return frame{}, errNoFrame
	}
	f := frame{
		kind:    b[4],
		head:    binary.LittleEndian.Uint32(b[8:]),
		body:    binary.LittleEndian.Uint32(b[12:]),
		headCRC: binary.LittleEndian.Uint32(b[16:]),
		bodyCRC: binary.LittleEndian.Uint32(b[20:]),
	}
	if f.kind < kindMessage || f.kind > kindDone || b[5]|b[6]|b[7] != 0 || f.head > maxHead || f.body > maxBody {
		return frame{}, errBadFrame
	}
	return f, nil
}

// checkHead reports whether the sizes and the envelope are as they were written.
func (f frame) checkHead(salt uint32, fixed, head []byte) bool {
	sum := crc32.Update(salt, castagnoli, fixed[4:16])
	return crc32.Update(sum, castagnoli, head) == f.headCRC
}

// checkBody reports whether the body is as it was written.
func (f frame) checkBody(salt uint32, body []byte) bool {
	return crc32.Update(salt, castagnoli, body) == f.bodyCRC
}

// segmentHeader is the first octets of a segment: "relayd", version, salt, and the sum of these. They
// are the same in every version: only then does an older relayd refuse a newer queue instead of
// setting it aside as damaged.
const segmentHeader = 16

// storeVersion is raised when an older relayd could not read what a newer one writes.
const storeVersion = 1

var errSegmentHeader = errors.New("the head of the segment is damaged")

// ErrNewerStore says that the queue was written by a newer relayd.
var ErrNewerStore = errors.New("the queue was written by a newer relayd: start that one again, or empty the queue with it first")

func formatSegmentHeader(salt uint32) []byte {
	b := append([]byte("relayd"), 0, storeVersion)
	b = binary.LittleEndian.AppendUint32(b, salt)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func parseSegmentHeader(b []byte) (salt uint32, err error) {
	switch {
	case len(b) < segmentHeader || !bytes.HasPrefix(b, []byte("relayd\x00")),
		crc32.Checksum(b[:12], castagnoli) != binary.LittleEndian.Uint32(b[12:]):
		return 0, errSegmentHeader
	case b[7] > storeVersion:
		return 0, ErrNewerStore
	}
	return binary.LittleEndian.Uint32(b[8:]), nil
}
