package domains

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayd/problem"
)

func TestANewAliasFileIsJudgedWithTheOthers(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: y@b.example\n")
	h.write("b.example/aliases", "gone: me@gmail.example\n")
	s := h.open()
	file := h.path("b.example/aliases")
	for _, tt := range []struct{ text, wrong, warning string }{
		{"y: me@gmail.example\n", "", ""},
		{"y: x@a.example\n", "circle", ""},
		{"y: \n", ":1: ", ""},
		{"y: none@a.example\n", "", "none@a.example"},
	} {
		_, warnings, err := s.Current().JudgeAliases(s.Current().Get("b.example").AliasOptions(false), file, []byte(tt.text))
		if _, list := errors.AsType[problem.List](err); (err != nil) != (tt.wrong != "") || err != nil && (!list || !strings.Contains(err.Error(), tt.wrong)) {
			t.Errorf("%q: %v", tt.text, err)
		}
		if (len(warnings) > 0) != (tt.warning != "") || !strings.Contains(warnings.Error(), tt.warning) {
			t.Errorf("%q: warnings %v", tt.text, warnings)
		}
	}
}

func TestAFileThatIsGoneWhileItsCopyIsInForceIsNotMadeAnew(t *testing.T) {
	h := newHost(t)
	h.write("a.example/users", "")
	h.write("a.example/aliases", "x: me@gmail.example\n")
	h.open()
	for name, want := range map[string]bool{"aliases": true, "users": false, "domain.toml": false} {
		file := h.path("a.example/" + name)
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		err := Vanished(h.good, "a.example", file)
		if (err != nil) != want || err != nil && !strings.Contains(err.Error(), "cp -p "+filepath.Join(h.good, "a.example", name)+" "+file) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
