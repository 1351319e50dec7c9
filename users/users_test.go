package users

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"relayd/problem"
)

// hash4 is a hash of "secret", at the lowest cost to keep the tests fast.
var hash4 = mustHash("secret")

func mustHash(password string) string {
	h, err := Hash(password, MinCost)
	if err != nil {
		panic(err)
	}
	return h
}

func parse(t testing.TB, text string) *Table {
	t.Helper()
	table, err := Parse("users", strings.NewReader(text))
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return table
}

func TestParseReadsEveryFormOfLine(t *testing.T) {
	table := parse(t, "# people\r\n\n"+
		"Alice:"+hash4+"\r\n"+
		"  \t\n"+
		"bob:!"+hash4+"\n"+
		"carol:{BLF-CRYPT}"+hash4+":1000:1000::/home/carol::quota=1G\n"+
		"dave:!{blf-crypt}"+hash4+"\n"+
		"erin:{BLF-CRYPT}!"+hash4+" \n"+
		"  # more\n"+
		"müller+x.y:"+hash4)
	want := []User{
		{"alice", hash4, false, 3},
		{"bob", hash4, true, 5},
		{"carol", hash4, false, 6},
		{"dave", hash4, true, 7},
		{"erin", hash4, true, 8},
		{"müller+x.y", hash4, false, 10},
	}
	if got := table.All(); !slices.Equal(got, want) {
		t.Errorf("All() = %v, want %v", got, want)
	}
	if got := table.Names(); len(got) != len(want) || got[0] != "alice" {
		t.Errorf("Names() = %v", got)
	}
	if u, ok := table.Lookup("ALICE"); !ok || u != want[0] {
		t.Errorf("Lookup(ALICE) = %v, %v", u, ok)
	}
	if _, ok := table.Lookup("mallory"); ok {
		t.Error("Lookup(mallory) found somebody")
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	tests := []struct{ name, line, want string }{
		{"no colon", "hunter2", "name:hash"},
		{"plain password", "bob:hunter2", "relay-util user-passwd"},
		{"marked plain password", "bob:{PLAIN}hunter2", "relay-util user-passwd"},
		{"sha-512 crypt", "bob:$6$hunter2$" + strings.Repeat("x", 86), "relay-util user-passwd"},
		{"the kind 2x", "bob:" + strings.Replace(hash4, "$2y", "$2x", 1), "relay-util user-passwd"},
		{"cut short", "bob:" + hash4[:59], "relay-util user-passwd"},
		{"a byte too many", "bob:" + hash4 + "x", "relay-util user-passwd"},
		{"a signed cost", "bob:" + strings.Replace(hash4, "$04", "$+4", 1), "relay-util user-passwd"},
		{"cost too low", "bob:" + strings.Replace(hash4, "$04", "$03", 1), "relay-util user-passwd"},
		{"cost too high", "bob:" + strings.Replace(hash4, "$04", "$17", 1), "cost 17"},
		{"no hash", "bob:", "relay-util user-passwd"},
		{"only a mark", "bob:!", "relay-util user-passwd"},
		{"no name", ":" + hash4, "nothing before the @"},
		{"slash", "../bob:" + hash4, "plain name"},
		{"slash inside", "a/b:" + hash4, "slash"},
		{"a whole address", "bob@example.org:" + hash4, "write only the name, without the @"},
		{"a space", "bob smith:" + hash4, "plain name"},
		{"two dots", "a..b:" + hash4, "plain name"},
		{"mark before the name", "!bob:" + hash4, "before the hash"},
		{"byte-order mark", "\ufeffbob:" + hash4, "byte-order mark"},
		{"too long a name", strings.Repeat("a", 65) + ":" + hash4, "64 octets"},
		{"not UTF-8", "b\xffb:" + hash4, "UTF-8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table, err := Parse("f", strings.NewReader("# one\n"+tt.line+"\n"))
			var list problem.List
			if !errors.As(err, &list) || len(list) != 1 || table != nil {
				t.Fatalf("Parse = %v, %v; want one problem", table, err)
			}
			p := list[0]
			if p.File != "f" || p.Line != 2 || !strings.Contains(p.Reason, tt.want) {
				t.Errorf("problem %v, want f:2: … %s …", p, tt.want)
			}
			if strings.Contains(p.Reason, "hunter2") {
				t.Errorf("problem %v quotes a password", p)
			}
		})
	}
}

func TestParseNamesTheFirstLineOfAUserThatStandsTwice(t *testing.T) {
	_, err := Parse("f", strings.NewReader("\nbob:"+hash4+"\nBOB:!"+hash4+"\nx\n"))
	var list problem.List
	if !errors.As(err, &list) || len(list) != 2 {
		t.Fatalf("Parse: %v", err)
	}
	if list[0].Line != 3 || !strings.Contains(list[0].Reason, "line 2") {
		t.Errorf("problem %v", list[0])
	}
}

func TestParseRefusesAFileThatIsNone(t *testing.T) {
	if _, err := Parse("f", strings.NewReader(strings.Repeat("#", maxFile+1))); err == nil {
		t.Error("a file over the limit was read")
	}
}

func TestNilTableHasNobody(t *testing.T) {
	var table *Table
	if _, ok := table.Lookup("a"); ok || len(table.All()) != 0 || len(table.Names()) != 0 {
		t.Error("a nil table has users")
	}
}

func FuzzParse(f *testing.F) {
	seed, err := os.ReadFile("testdata/htpasswd")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(seed))
	f.Add("a:" + hash4 + "\r\n#\n\nb:!{BLF-CRYPT}" + hash4 + ":x")
	f.Add("a\nb:\n:\n!:!\n")
	f.Fuzz(func(t *testing.T, text string) {
		table, err := Parse("f", strings.NewReader(text))
		if err != nil {
			var list problem.List
			if !errors.As(err, &list) || len(list) == 0 || table != nil {
				t.Fatalf("Parse = %v, %v", table, err)
			}
			return
		}
		for _, u := range table.All() {
			if got, ok := table.Lookup(u.Name); !ok || got != u {
				t.Fatalf("Lookup(%q) = %v, %v", u.Name, got, ok)
			}
			if name, err := CheckName(u.Name); err != nil || name != u.Name {
				t.Fatalf("CheckName(%q) = %q, %v", u.Name, name, err)
			}
			checkEdits(t, text, u)
		}
	})
}
