package load

import (
	"context"
	"strings"
	"testing"
	"time"

	"relayd/internal/sink"
)

func TestWhatWasSentIsKnownAgain(t *testing.T) {
	s, err := sink.Start(sink.Options{Addr: "127.0.0.1:0", Hostname: "mx.example.test"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	g := New(Options{Addr: s.Addr(), From: "a@example.test", To: "b@example.test", Connections: 2, Size: 500, Prefix: "t"})
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	if err := g.Wait(ctx, 5); err != nil {
		t.Fatal(err)
	}
	stop()
	<-ended
	there := map[string]bool{}
	for _, m := range s.Messages() {
		there[ID(m.Data)] = true
		if !Whole(m.Data) {
			t.Errorf("not whole: %q", m.Data)
		}
		text := string(m.Data)
		for _, damaged := range []string{text + "\r\n", text[:len(text)-10], strings.Replace(text, "xx", "xy", 1), strings.Replace(text, ": t-", ": u-", 1)} {
			if Whole([]byte(damaged)) {
				t.Errorf("damage is not noticed: %q", damaged)
			}
		}
	}
	for _, id := range g.Accepted() {
		if !there[id] {
			t.Errorf("%s was accepted and is not there", id)
		}
	}
}
