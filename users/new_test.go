package users

import (
	"strings"
	"testing"
)

func TestNamesThatNobodyShouldGet(t *testing.T) {
	hash := "$2y$04$" + strings.Repeat("a", 53)
	table, err := Parse("users", strings.NewReader("me:"+hash+"\nfirst.last:"+hash+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	usual := Ways{SuffixSeparators: "+", DropCharacters: "."}
	for _, c := range []struct {
		name string
		ways Ways
		want string // in the error; "" for none
	}{
		{"bob", usual, ""},
		{"b.o.b", usual, ""},
		{"bob-work", usual, ""},
		{"+bob", usual, ""}, // begins with it: there is no name before
		{"*", usual, "stands for all other names"},
		{"a*b", usual, "stands for all other names"},
		{"eve+x", usual, "it is an address of the user eve"},
		{"EVE+x", usual, "it is an address of the user eve"},
		{"eve+x", Ways{DropCharacters: "."}, ""},
		{"eve-x", Ways{SuffixSeparators: "-+"}, "it is an address of the user eve"},
		{"m.e", usual, `the same name as that of the user me, for "." is ignored`},
		{"FirstLast", usual, "the same name as that of the user first.last"},
		{"m.e", Ways{SuffixSeparators: "+"}, ""},
	} {
		err := CheckNew(c.name, table, c.ways)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s, %+v: %v, want %q", c.name, c.ways, err, c.want)
		}
	}
}
