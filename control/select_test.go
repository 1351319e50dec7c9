package control

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"relayd/queue"
)

func TestFilters(t *testing.T) {
	tests := []struct {
		name string
		f    Filter
		want string // IDs of threeMessages
	}{
		{"nothing", Filter{}, "AAAAAAAA BBBBBBBB CCCCCCCC"},
		{"a domain", Filter{Domain: "TWO.example."}, "AAAAAAAA"},
		{"the domain of an alias", Filter{Domain: "bücher.example"}, "CCCCCCCC"},
		{"a domain of none", Filter{Domain: "three.example"}, ""},
		{"not the sender's domain", Filter{Domain: "s.example"}, ""},
		{"a sender", Filter{Sender: "S@X.Example"}, "AAAAAAAA CCCCCCCC"},
		{"the null sender", Filter{Sender: "<>"}, "BBBBBBBB"},
		{"a sender's domain", Filter{Sender: "x.example"}, "AAAAAAAA CCCCCCCC"},
		{"a sender's domain with an @", Filter{Sender: "@x.example"}, "AAAAAAAA CCCCCCCC"},
		{"not one that it ends in", Filter{Sender: "example"}, ""},
		{"another sender", Filter{Sender: "t@x.example"}, ""},
		{"a user", Filter{User: "U@x.example"}, "AAAAAAAA"},
		{"waiting", Filter{State: queue.Waiting}, "AAAAAAAA CCCCCCCC"},
		{"held", Filter{State: queue.Held}, "BBBBBBBB"},
		{"before", Filter{Before: noon.Add(time.Nanosecond)}, "AAAAAAAA CCCCCCCC"},
		{"after", Filter{After: noon}, "BBBBBBBB"},
		{"in between", Filter{After: noon.Add(-1), Before: noon.Add(1)}, "AAAAAAAA CCCCCCCC"},
		{"two that hold", Filter{Sender: "x.example", Domain: "two.example"}, "AAAAAAAA"},
		{"two of which one holds", Filter{Sender: "x.example", State: queue.Held}, ""},
	}
	f := &fake{envelopes: threeMessages()}
	c, _ := serve(t, f)
	for _, tt := range tests {
		var ids []string
		err := c.List(context.Background(), tt.f, 0, func(m Message) bool { ids = append(ids, m.ID); return true })
		if got := strings.Join(ids, " "); got != tt.want || err != nil {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
		if n, err := c.Count(context.Background(), tt.f); n != len(ids) || err != nil {
			t.Errorf("%s: %d are counted, %v", tt.name, n, err)
		}
		if done, err := c.Change(context.Background(), "hold", Selection{Filter: tt.f}); tt.f != (Filter{}) && (!slices.Equal(done, ids) || err != nil) {
			t.Errorf("%s: %v are held, %v", tt.name, done, err)
		}
	}
}

func TestFiltersThatMeanNothing(t *testing.T) {
	for want, f := range map[string]Filter{
		"no domain name has":     {Domain: "a b"},
		"before the @":           {Sender: strings.Repeat("a", 65) + "@x.example"},
		"has a byte that":        {Sender: "<s>"},
		"the domain is empty":    {Sender: "@"},
		"has no @":               {User: "me"},
		"waiting or held":        {State: queue.Delivered},
		"older and younger than": {Before: noon, After: noon},
	} {
		if err := f.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", f, err, want)
		}
	}
}

// TestListReadsNoMoreThanItNeeds is what makes a list of some messages instant in a long queue.
func TestListReadsNoMoreThanItNeeds(t *testing.T) {
	f := &fake{}
	for range 100 {
		f.envelopes = append(f.envelopes, threeMessages()[0])
	}
	c, _ := serve(t, f)
	rapid.Check(t, func(t *rapid.T) {
		f.read = 0
		limit, n := rapid.IntRange(1, 110).Draw(t, "limit"), 0
		if err := c.List(context.Background(), Filter{Domain: "two.example"}, limit, func(Message) bool { n++; return true }); err != nil {
			t.Fatal(err)
		}
		if n != min(limit, 100) || f.read > limit+1 {
			t.Errorf("limit %d: %d messages, %d read", limit, n, f.read)
		}
	})
}

func TestSelections(t *testing.T) {
	tests := []struct {
		name string
		sel  Selection
		want string // IDs
		err  string
	}{
		{"one", Selection{IDs: []string{"BBBBBBBB"}}, "BBBBBBBB", ""},
		{"two in their order", Selection{IDs: []string{"CCCCCCCC", "AAAAAAAA"}}, "CCCCCCCC AAAAAAAA", ""},
		{"all", Selection{All: true}, "AAAAAAAA BBBBBBBB CCCCCCCC", ""},
		{"a filter", Selection{Filter: Filter{Domain: "two.example"}}, "AAAAAAAA", ""},
		{"a filter of none", Selection{Filter: Filter{Domain: "three.example"}}, "", ""},
		{"nothing", Selection{}, "", "name the messages"},
		{"IDs and all", Selection{IDs: []string{"AAAAAAAA"}, All: true}, "", "name the messages"},
		{"all and a filter", Selection{All: true, Filter: Filter{Sender: "<>"}}, "", "name the messages"},
		{"no domain", Selection{Filter: Filter{Domain: "a b"}}, "", "no domain name has"},
		{"one that is not there", Selection{IDs: []string{"AAAAAAAA", "DDDDDDDD", "BBBBBBBB"}}, "AAAAAAAA BBBBBBBB", "DDDDDDDD: no such message in the queue"},
		{"no ID", Selection{IDs: []string{"AAAAAAAA", "../../etc/passwd"}}, "", `"../../etc/passwd" is not a queue ID`},
		{"an empty ID", Selection{IDs: []string{""}}, "", `"" is not a queue ID`},
		{"a long ID", Selection{IDs: []string{strings.Repeat("A", 100_000)}}, "", "is not a queue ID"},
		{"more than a request may hold", Selection{IDs: slices.Repeat([]string{"AAAAAAAA"}, 100_000)}, "", "too large"},
	}
	f := &fake{envelopes: threeMessages()}
	c, _ := serve(t, f)
	for _, tt := range tests {
		for _, verb := range []string{"retry", "hold", "release", "remove"} {
			t.Run(verb+" "+tt.name, func(t *testing.T) {
				f.done = nil
				ids, err := c.Change(context.Background(), verb, tt.sel)
				if got := strings.Join(ids, " "); got != tt.want {
					t.Errorf("changed %q, want %q", got, tt.want)
				}
				if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%v, want %q", err, tt.err)
				}
				for i, id := range ids {
					if f.done[i] != verb+" "+id {
						t.Errorf("done: %q", f.done)
					}
				}
				if len(f.done) != len(ids) {
					t.Errorf("done: %q", f.done)
				}
			})
		}
	}
}

func TestFailuresOfASelectionAreTold(t *testing.T) {
	f := &fake{envelopes: threeMessages(), full: errors.New("disk full")}
	c, _ := serve(t, f)
	if ids, err := c.Change(context.Background(), "hold", Selection{All: true}); len(ids) > 0 || err == nil || strings.Count(err.Error(), "disk full") != 3 {
		t.Errorf("%q, %v", ids, err)
	}
	f.full = queue.ErrHeld
	if ids, err := c.Change(context.Background(), "retry", Selection{All: true}); len(ids) > 0 || err != nil {
		t.Errorf("among all: %q, %v", ids, err)
	}
	if _, err := c.Change(context.Background(), "retry", Selection{IDs: []string{"BBBBBBBB"}}); err == nil || !strings.Contains(err.Error(), "it is held") {
		t.Errorf("by name: %v", err)
	}
}

// TestInterruptedChangeStopsAfterTheCurrentMessage: by filter and by name.
func TestInterruptedChangeStopsAfterTheCurrentMessage(t *testing.T) {
	s := &Server{queue: &fake{envelopes: threeMessages()}}
	for _, body := range []string{`{"all":true}`, `{"ids":["AAAAAAAA","BBBBBBBB","CCCCCCCC"]}`} {
		ctx, interrupt := context.WithCancel(context.Background())
		n := 0
		change := s.change(func(string) error {
			if n++; n == 2 {
				interrupt()
			}
			return nil
		})
		w := httptest.NewRecorder()
		change(w, httptest.NewRequest("POST", "/queue/hold", strings.NewReader(body)).WithContext(ctx))
		if text := w.Body.String(); n != 2 || w.Code != http.StatusOK || !strings.Contains(text, "BBBBBBBB") || strings.Contains(text, "]") {
			t.Errorf("%s: %d were changed: %s", body, n, text)
		}
	}
}

// FuzzSelection: what is taken for a selection names its messages in one way, and matching them
// does not fail.
func FuzzSelection(f *testing.F) {
	for _, seed := range []string{
		`{"ids":["AAAAAAAA"]}`, `{"all":true}`, `{"domain":"x.example"}`, `{"sender":"<>","state":"held"}`, `{"sender":"\"a b\"@x.example"}`,
		`{"sender":"@"}`, `{"before":"2026-06-01T12:00:00Z","after":"2026-01-01T12:00:00Z"}`, `{"user":"a@b.example"} {}`, `{"elder":"1h"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		var sel Selection
		if decode(httptest.NewRecorder(), httptest.NewRequest("POST", "/", strings.NewReader(body)), &sel) != nil {
			return
		}
		selected, err := sel.compile()
		if err != nil {
			return
		}
		matched := 0
		for _, e := range threeMessages() {
			if selected.is(e) {
				matched++
			}
		}
		if limited := sel.Filter != (Filter{}); matched == 3 && limited && sel.Sender != "" {
			t.Errorf("%s is the sender of bounces and of others", sel.Sender)
		}
		text, err := json.Marshal(sel)
		if err != nil {
			t.Fatal(err)
		}
		if sel.All == (len(sel.IDs) > 0) && sel.Filter == (Filter{}) {
			t.Errorf("%s names nothing, or twice", text)
		}
	})
}
