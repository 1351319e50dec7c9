package queue

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"slices"
	"testing"
)

// TestAQueueOfANewerRelaydIsLeftAsItIs: an older relayd that is put in place of a newer one must
// neither serve what it does not understand nor take it for damage.
func TestAQueueOfANewerRelaydIsLeftAsItIs(t *testing.T) {
	m := newMemFS()
	s := open(t, m, "q")
	add(t, s, newEnvelope(t, idA, "a@one.test"), "kept")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	segment := m.nodes["q/log/0000000001.log"].data
	setVersion(segment, storeVersion+1)
	before := contents(m)

	if _, err := OpenStore(StoreOptions{Dir: "q", FS: m, Group: byDomain, Log: quiet, segmentSize: 64 << 10}); !errors.Is(err, ErrNewerStore) {
		t.Fatalf("a newer queue is opened: %v", err)
	}
	if after := contents(m); !maps.Equal(before, after) {
		t.Errorf("files before %q, after %q", slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
	}

	setVersion(segment, storeVersion)
	s = open(t, m, "q")
	defer s.Close()
	if got := bodyOf(t, s, idA); got != "kept" {
		t.Errorf("the body is %q", got)
	}
}

// setVersion makes a segment one of another version of the store.
func setVersion(segment []byte, version byte) {
	segment[7] = version
	binary.LittleEndian.PutUint32(segment[12:], crc32.Checksum(segment[:12], castagnoli))
}

func contents(m *memFS) map[string]string {
	files := map[string]string{}
	for name, n := range m.nodes {
		if n != nil {
			files[name] = string(n.data)
		}
	}
	return files
}
