package main

import (
	"bytes"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestCutKeepsWhatWasFlushed: after any writes and flushes, every sector of a cut is what it was at
// the last flush or what some write since has made of it, and nothing else.
func TestCutKeepsWhatWasFlushed(t *testing.T) {
	const sectors = 8
	rapid.Check(t, func(t *rapid.T) {
		d := newDrive(make([]byte, sectors*sector), 0)
		could := make([]map[byte]bool, sectors) // what may stand in each
		for i := range could {
			could[i] = map[byte]bool{0: true}
		}
		for n := range rapid.IntRange(0, 20).Draw(t, "steps") {
			if rapid.IntRange(0, 3).Draw(t, "flush") == 0 {
				d.flush()
				for i := range could {
					could[i] = map[byte]bool{d.view[i*sector]: true}
				}
				continue
			}
			first := rapid.IntRange(0, sectors-1).Draw(t, "first")
			count := rapid.IntRange(1, sectors-first).Draw(t, "count")
			d.write(bytes.Repeat([]byte{byte(n + 1)}, count*sector), int64(first)*sector)
			for i := range count {
				could[first+i][byte(n+1)] = true
			}
		}
		content, _ := d.cut()
		for i, allowed := range could {
			got := content[i*sector : (i+1)*sector]
			if !allowed[got[0]] || bytes.Count(got, got[:1]) != sector {
				t.Fatalf("sector %d holds %d, which is none of %v", i, got[0], allowed)
			}
		}
	})
}

// TestCutLosesWhatWasNotFlushed: what is written and not flushed is there at times, at times not,
// and at times in part.
func TestCutLosesWhatWasNotFlushed(t *testing.T) {
	d := newDrive(make([]byte, 64*sector), 0)
	d.write(bytes.Repeat([]byte{1}, 64*sector), 0)
	seen := map[string]bool{}
	for range 200 {
		content, _ := d.cut()
		switch bytes.Count(content, []byte{1}) {
		case 0:
			seen["nothing"] = true
		case 64 * sector:
			seen["all"] = true
		default:
			seen["a part"] = true
		}
	}
	if len(seen) != 3 {
		t.Errorf("of 200 cuts there are only such with %v", seen)
	}
	if d.write(make([]byte, sector), 64*sector) {
		t.Error("a write behind the end is taken")
	}
}

// TestLateDriveLies: its flushes keep nothing until their time has come.
func TestLateDriveLies(t *testing.T) {
	d := newDrive(make([]byte, sector), 0)
	d.late = time.Hour
	d.write(bytes.Repeat([]byte{1}, sector), 0)
	d.flush()
	if content, _ := d.cut(); content[0] != 0 {
		t.Error("it is there at once")
	}
	d.late = time.Nanosecond
	if content, _ := d.cut(); content[0] != 1 {
		t.Error("it is not there later")
	}
}
