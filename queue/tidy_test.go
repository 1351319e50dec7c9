package queue

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
)

// TestSegmentStaysForWhatIsOnItsWay: a message was written into a segment and synced, and before its
// Add went on the journal had rolled, all else in the segment was delivered, and the segment removed.
func TestSegmentStaysForWhatIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, newMemFS(), "q")
		at, err := s.journal.append(kindMessage, []byte("{}"), []byte("on its way\r\n"), true) // and no further
		if err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			id := fmt.Sprintf("FILL%04d", n)
			add(t, s, newEnvelope(t, id, "a@one.test"), strings.Repeat("x", 40<<10))
			if err := s.Remove(id); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if body, err := readPlace(at, true); err != nil || string(body) != "on its way\r\n" || s.isRetired(at.seg) {
			t.Errorf("%q %v, and the segment is gone: %v", body, err, s.isRetired(at.seg))
		}
		at.seg.pending.Done()
		synctest.Wait()
		if !s.isRetired(at.seg) {
			t.Error("the segment stays for ever")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
