package problem

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
)

func TestString(t *testing.T) {
	tests := []struct {
		p    Problem
		want string
	}{
		{At("/etc/x", 3, "no %s", "key"), "/etc/x:3: no key"},
		{At("/etc/x", 0, "cannot be read"), "/etc/x: cannot be read"},
		{At("/etc/x", 1, "quoting a\r\nline\nof it"), "/etc/x:1: quoting a line of it"},
	}
	for _, tt := range tests {
		if tt.p.String() != tt.want || tt.p.Error() != tt.want {
			t.Errorf("%q, want %q", tt.p.String(), tt.want)
		}
	}
}

func TestList(t *testing.T) {
	var none List
	if none.Err() != nil || (List{}).Err() != nil {
		t.Error("nothing wrong is an error")
	}
	two := List{At("a", 1, "x"), At("b", 0, "y")}
	if got := two.Error(); got != "a:1: x\nb: y" {
		t.Errorf("%q", got)
	}
	found, ok := errors.AsType[List](fmt.Errorf("reading: %w", two.Err()))
	if !ok || len(found) != 2 {
		t.Errorf("%v", found)
	}
}

func TestJSON(t *testing.T) {
	text, err := json.Marshal(List{At("a", 1, "x"), At("b", 0, "y")})
	if want := `[{"file":"a","line":1,"reason":"x"},{"file":"b","reason":"y"}]`; err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
}
