package control

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStreamGivesSignsOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		s := newStream(w)
		s.put(1)
		if w.Flushed {
			t.Error("every element is sent on by itself")
		}
		time.Sleep(flushEvery)
		s.breathe()
		if !w.Flushed {
			t.Error("what is written is not sent on")
		}
		for range 120 {
			time.Sleep(time.Second)
			s.breathe()
		}
		if n := strings.Count(w.Body.String(), "\n\n"); n == 0 {
			t.Errorf("no sign of life in %q", w.Body)
		}
		s.put(2)
		s.end()
		var list []int
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list) != 2 {
			t.Errorf("%v in %q", err, w.Body)
		}
	})
}
