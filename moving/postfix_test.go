package moving

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayd/problem"
)

// rules are those of a plan, as an aliases file would have them, by domain.
func rules(p *Plan) string {
	var b strings.Builder
	for _, d := range p.Domains {
		b.WriteString("[" + d.Name + "]\n")
		for _, r := range d.Rules {
			b.WriteString(r.String() + "\n")
		}
	}
	return b.String()
}

func TestVirtualAliases(t *testing.T) {
	tests := []struct {
		name, text, want string
		left             []string
	}{
		{"an address", "Info@Example.org me@gmail.example\n", "[example.org]\ninfo: me@gmail.example\n", nil},
		{"several targets", "a@x.example b@y.example,c@y.example d@y.example\n", "[x.example]\na: b@y.example, c@y.example, d@y.example\n", nil},
		{"a catch-all", "@x.example\tb@y.example\n", "[x.example]\n*: b@y.example\n", nil},
		{"a domain to a domain", "@x.example @y.example\n", "[x.example]\n*: *@y.example\n", nil},
		{"a domain alone", "x.example anything\n", "[x.example]\n", nil},
		{"lines that go on", "a@x.example\n  b@y.example,\n# between\n\n\tc@y.example\nb@x.example d@y.example", "[x.example]\na: b@y.example, c@y.example\nb: d@y.example\n", nil},
		{"comments", "# one\n  # two\n\na@x.example b@y.example\n", "[x.example]\na: b@y.example\n", nil},
		{"line ends of Windows", "a@x.example b@y.example\r\nb@x.example c@y.example\r\n", "[x.example]\na: b@y.example\nb: c@y.example\n", nil},
		{"a name in quotes", `"a b"@x.example c@y.example`, "[x.example]\n\"a b\": c@y.example\n", nil},
		{"a name that is a star", `*@x.example c@y.example`, "", nil},
		{"in the order of domains", "a@y.example b@z.example\na@x.example b@z.example\n", "[x.example]\na: b@z.example\n[y.example]\na: b@z.example\n", nil},
		{"a user of the machine", "root a@x.example\n", "", []string{"virtual:1: root: "}},
		{"to a user of the machine", "a@x.example b@y.example, root\n", "[x.example]\n", []string{"virtual:1: a@x.example: root is a user"}},
		{"a command", "a@x.example \"|cat b@y\"\nb@x.example :include:/x@y", "[x.example]\n", []string{"virtual:1: a@x.example: commands", "virtual:2: b@x.example: commands"}},
		{"twice: the first counts", "a@x.example b@y.example\nA@x.example c@y.example\n", "[x.example]\na: b@y.example\n", []string{"virtual:2: A@x.example: it stands in line 1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plan, err := parseVirtual("virtual", []byte(tt.text))
			if tt.name == "a name that is a star" {
				if err == nil {
					t.Errorf("it is taken as %s", rules(plan))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := rules(plan); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
			wantLeft(t, plan.Left, tt.left...)
		})
	}
}

func TestTablesThatAreNone(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"a regular expression", "/^a@x/ b@y.example\n", "virtual:1: this is a table of regular expressions"},
		{"its condition", "# x\nif /x/\n/y/ z@y.example\nendif\n", "virtual:2: this is a table of regular expressions"},
		{"a compiled table", "a@x.example\x00b@y.example\x00", "virtual: this is no text"},
		{"nothing behind a name", "x.example ok\na@x.example\n", "virtual:2: a@x.example: nothing stands behind it"},
		{"no domain", "a@-x- b@y.example\n", "virtual:1: "},
		{"a target that is none", "a@x.example b@@y\n", "virtual:1: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseVirtual("virtual", []byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestKindsOfTables(t *testing.T) {
	file := filepath.Join(t.TempDir(), "virtual")
	if err := os.WriteFile(file, []byte("a@x.example b@y.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for kind, taken := range map[string]bool{"": true, "hash:": true, "lmdb:": true, "texthash:": true, "pcre:": false, "regexp:": false, "mysql:": false} {
		plan, err := PostfixVirtual(kind + file)
		if taken != (err == nil) || taken && rules(plan) != "[x.example]\na: b@y.example\n" {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if _, err := PostfixVirtual(file + ".gone"); err == nil {
		t.Error("a file that is not there is taken")
	}
}

func FuzzVirtual(f *testing.F) {
	f.Add("a@x.example b@y.example\n\tc@y.example\n@x.example @y.example\nx.example ok\nroot x\n")
	f.Add("\"a\\\" b\"@x.example c@y.example, \"|cat\"\n")
	f.Add("/x/ y")
	f.Add(" x\n#\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		plan, err := parseVirtual("virtual", []byte(text))
		if err != nil {
			if _, ok := err.(problem.List); !ok {
				t.Fatalf("%T", err)
			}
			return
		}
		lines := strings.Count(text, "\n") + 1
		for _, d := range plan.Domains {
			seen := map[string]bool{}
			for _, r := range d.Rules {
				if seen[r.Left] || r.Line < 1 || r.Line > lines || len(r.Targets) == 0 {
					t.Fatalf("%+v", r)
				}
				seen[r.Left] = true
			}
		}
		for _, p := range plan.Left {
			if p.Line < 1 || p.Line > lines {
				t.Fatalf("%v", p)
			}
		}
	})
}
