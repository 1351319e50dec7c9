package aliases

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"relayd/address"
)

// oneDomain hosts one domain in which some names have mailboxes.
type oneDomain struct{ table *Table }

func (o oneDomain) Table(domain string) *Table {
	if domain == o.table.Domain() {
		return o.table
	}
	return nil
}

func (o oneDomain) HasMailbox(a address.Address) bool { return len(a.Local) == 2 }

// FuzzParse reads any bytes as a file. What parses must survive being written and read again,
// and Check and Resolve must end on it for any name.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.aliases")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, "user+tag")
		for line := range bytes.Lines(text) {
			f.Add(line, "a.b+c")
		}
	}
	f.Add([]byte("a: |cat \"x, y\" #z\nme: me\n*: *"), "İ")
	f.Add([]byte("# relayd: a expires 2020-01-01, gone\na: b\n*: a"), "a+b")
	opt := example
	opt.AllowPipe = true
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		table, err := Parse("f", bytes.NewReader(text), opt)
		if err != nil {
			if table != nil {
				t.Fatal("a table in spite of", err)
			}
			return
		}
		w := oneDomain{table}
		problems := Check(w, []*Table{table})
		Dangling(w, []*Table{table})
		Resolve(w, address.Address{Local: name, Domain: opt.Domain})
		for _, r := range table.Rules() {
			reread(t, r, opt)
			_, err := Resolve(w, address.Address{Local: r.Left, Domain: opt.Domain})
			if err != nil && len(problems) == 0 && !errors.Is(err, ErrNoSuchAddress) {
				t.Errorf("%s: %v after a clean Check", r, err)
			}
		}
	})
}

// reread parses what a rule is written as and compares. The rule stands on the second line,
// because a byte order mark would be dropped from the first.
func reread(t *testing.T, r Rule, opt Options) {
	table, err := Parse("f", bytes.NewReader([]byte("\n"+r.String()+"\n")), opt)
	if err != nil {
		t.Fatalf("%q is written as %q: %v", r.Left, r, err)
	}
	if got := table.Rules()[0]; got.Left != r.Left || got.String() != r.String() || len(got.Targets) != len(r.Targets) {
		t.Fatalf("%q is read again as %q", r, got)
	}
}
