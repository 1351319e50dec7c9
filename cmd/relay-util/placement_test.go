package main

import (
	"errors"
	"strings"
	"testing"
)

func TestStepsAreDoneAllOrNone(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name, steps, want string
		err               error
	}{
		{"all", "a b c", "+a +b +c", nil},
		{"the last fails", "a b !", "+a +b -b -a", broken},
		{"the first fails", "! a b", "", broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var done []string
			var steps []placement
			for name := range strings.FieldsSeq(tt.steps) {
				steps = append(steps, placement{
					func() error {
						if name == "!" {
							return broken
						}
						done = append(done, "+"+name)
						return nil
					},
					func() error { done = append(done, "-"+name); return nil },
				})
			}
			if err := putInPlace(steps); !errors.Is(err, tt.err) || strings.Join(done, " ") != tt.want {
				t.Errorf("%v, %v", done, err)
			}
		})
	}
}
