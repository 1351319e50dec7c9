package control

import (
	"context"
	"slices"
	"strings"
	"testing"
)

func TestBansAreListedAndLifted(t *testing.T) {
	all := []Ban{
		{Kind: "source", Name: "192.0.2.1/32", Until: noon, Times: 2}, {Kind: "source", Name: "2001:db8:1:2::/64", Until: noon, Times: 1},
		{Kind: "account", Name: "app@example.org", Until: noon, Times: 1},
	}
	for _, c := range []struct {
		name string
		want []int
	}{
		{"", []int{0, 1, 2}}, {"192.0.2.1", []int{0}}, {"::ffff:192.0.2.1", []int{0}}, {"192.0.2.0/24", []int{0}}, {"192.0.2.2", nil},
		{"2001:db8:1:2::77", []int{1}}, {"2001:DB8:1:2::/64", []int{1}}, {"2001:db8:1:3::77", nil},
		{"App@Example.org", []int{2}}, {"example.org", []int{2}}, {"@example.org", []int{2}}, {"ample.org", nil}, {"p@example.org", nil},
	} {
		var want []Ban
		for _, i := range c.want {
			want = append(want, all[i])
		}
		f := &fake{bans: slices.Clone(all)}
		client, _ := serve(t, f)
		if got, err := client.Bans(context.Background(), BanSelection{Name: c.name}); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: listed %v, %v; want %v", c.name, got, err, want)
		}
		if got, err := client.Unban(context.Background(), BanSelection{Name: c.name, All: c.name == ""}); err != nil || !slices.Equal(got, want) || len(f.bans) != 3-len(want) {
			t.Errorf("%q: lifted %v, %v; left %v", c.name, got, err, f.bans)
		}
	}
}

func TestABanIsNotLiftedByMistake(t *testing.T) {
	f := &fake{bans: []Ban{{Kind: "account", Name: "app@example.org"}}}
	client, _ := serve(t, f)
	for _, sel := range []BanSelection{{}, {Name: "app@example.org", All: true}} {
		if _, err := client.Unban(context.Background(), sel); err == nil || !strings.Contains(err.Error(), "say which bans") || len(f.bans) != 1 {
			t.Errorf("%+v: %v, left %v", sel, err, f.bans)
		}
	}
}
