package mtasts

import (
	"strings"
	"testing"
)

func TestRecords(t *testing.T) {
	long := strings.Repeat("a", 32)
	for _, c := range []struct {
		want    string
		records []string
	}{
		{"20160831085700Z", []string{"v=STSv1; id=20160831085700Z;"}},
		{"1", []string{"v=STSv1;id=1"}},
		{"1", []string{"v=STSv1;  id=1 ; "}},
		{"1", []string{"v=STSv1 ; \tid=1"}},
		{"1", []string{"v=STSv1; x=y; id=1; z.0-_=!?"}},
		{long, []string{"v=STSv1; id=" + long}},
		{"1", []string{"v=spf1 -all", "v=STSv1; id=1", "v=STSv10; id=2", "STSv1", "v=STSv2; id=3", "V=STSv1; id=4", "", "v=STSv1"}},

		{"", nil},
		{"", []string{"v=spf1 -all"}},
		{"", []string{"v=STSv1; id=1", "v=STSv1; id=1"}},
		{"", []string{"v=STSv1; id=1", "v=STSv1; nonsense"}},
		{"", []string{"v=STSv1;"}},
		{"", []string{"v=STSv1; id="}},
		{"", []string{"v=STSv1; id=a-b"}},
		{"", []string{"v=STSv1; id=" + long + "a"}},
		{"", []string{"v=STSv1; id=1; id=2"}},
		{"", []string{"v=STSv1; ID=1"}},
		{"", []string{"v=STSv1; id = 1"}},
		{"", []string{"v=STSv1; id=1;;"}},
		{"", []string{"v=STSv1;; id=1"}},
		{"", []string{"v=STSv1; id=1; =x"}},
		{"", []string{"v=STSv1; id=1; x"}},
		{"", []string{"v=STSv1; id=1; x=a=b"}},
		{"", []string{"v=STSv1; id=1; x=\xe9"}},
		{"", []string{" v=STSv1; id=1"}},
		{"", []string{"v = STSv1; id=1"}},
	} {
		if got := parseRecords(c.records); got != c.want {
			t.Errorf("%q: %q; want %q", c.records, got, c.want)
		}
	}
}

// FuzzRecords takes whatever DNS may hold: an id can stand in a record and in a file.
func FuzzRecords(f *testing.F) {
	f.Add("v=STSv1; id=1;", "")
	f.Add("v=STSv1;id=1; x=y", "v=spf1 -all")
	f.Add("v=STSv1 \t;\tid=Z9;", "v=STSv1;")
	f.Fuzz(func(t *testing.T, a, b string) {
		id := parseRecords([]string{a, b})
		if id == "" {
			return
		}
		if len(id) > maxID || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
			t.Errorf("%q", id)
		}
		if parseRecords([]string{b, a}) != id || parseRecords([]string{"v=STSv1; id=" + id}) != id {
			t.Errorf("%q in %q and %q", id, a, b)
		}
		if parseRecords([]string{a, b, "v=STSv1; id=1"}) != "" {
			t.Errorf("one record too many: %q, %q", a, b)
		}
	})
}
