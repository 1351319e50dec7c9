package queue

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"relayd/address"
)

// from is an envelope that a user has submitted; "" is mail from outside.
func from(t *testing.T, user string, n int) *Envelope {
	t.Helper()
	e := newEnvelope(t, fmt.Sprintf("FROM%04d%d", n, len(user)), "a@one.test")
	e.User = address.Address{}
	if user != "" {
		e.User = addr(t, user)
	}
	return e
}

func TestNobodyFillsTheQueueAlone(t *testing.T) {
	for name, opt := range map[string]StoreOptions{
		"messages": {MaxMessages: 100},
		"bytes":    {MaxBytes: 100 * 1000},
	} {
		t.Run(name, func(t *testing.T) {
			opt.Dir, opt.FS, opt.Group, opt.Log, opt.segmentSize = "q", newMemFS(), byDomain, quiet, 64<<10
			s, err := OpenStore(opt)
			if err != nil {
				t.Fatal(err)
			}
			body := strings.Repeat("x", 1000)
			took := map[string]int{}
			fill := func(user string) {
				for n := range 200 {
					err := s.Add(from(t, user, n), strings.NewReader(body))
					if err == nil {
						took[user]++
					} else if !errors.Is(err, ErrFull) {
						t.Fatal(err)
					}
				}
			}
			fill("ann@example.org")
			fill("bert@example.org")
			if took["ann@example.org"] != 50 || took["bert@example.org"] != 50 {
				t.Fatalf("taken %v", took)
			}
			fill("")
			if took[""] != 0 {
				t.Errorf("a full queue took %d", took[""])
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = OpenStore(opt); err != nil {
				t.Fatal(err)
			}
			for n := range 30 {
				if err := s.Remove(from(t, "ann@example.org", n).ID); err != nil {
					t.Fatal(err)
				}
			}
			fill("")
			if took[""] != 30 {
				t.Errorf("of 30 places %d were taken", took[""])
			}
			if st := s.Stats(); st.Messages != 100 || st.Bytes != 100_000 {
				t.Errorf("%+v", st)
			}
		})
	}
}
