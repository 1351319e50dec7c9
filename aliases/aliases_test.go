package aliases

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"relayd/address"
	"relayd/internal/testnet"
	"relayd/problem"
)

var example = Options{Domain: "example.org", SuffixSeparators: "+", DropCharacters: "."}

func mustParse(t *testing.T, text string, opt Options) *Table {
	t.Helper()
	table, err := Parse(opt.Domain+"/aliases", strings.NewReader(text), opt)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func parseFile(t *testing.T, name string) (*Table, error) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return Parse(name, f, example)
}

func TestParseGoodFile(t *testing.T) {
	table, err := parseFile(t, "testdata/good.aliases")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`me: someone@gmail.com`,
		`shop: me@example.org, helper@example.net`,
		`first.last: me@example.org`,
		`me+news: news@example.net`,
		`"odd name, with: everything #": me@example.org`,
		`list: a@x.org, b@x.org, B@x.org`,
		`keep: *@other.example`,
		`backup: me@remote.example via mx1.remote.example/[192.0.2.1]:2525`,
		`v6: me@remote.example via [2001:db8::1]:25/[2001:db8::2]`,
		`ñandú: añil@xn--bcher-kva.example`,
		`quoted: "a,b"@x.org, "c d"@x.org`,
		`*: me@example.org`,
	}
	var got []string
	for _, r := range table.Rules() {
		got = append(got, r.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("rules:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if r := table.Rules()[2]; r.Line != 4 || r.File != "testdata/good.aliases" {
		t.Errorf("third rule is at %s:%d", r.File, r.Line)
	}
}

func TestParseToleratesEditors(t *testing.T) {
	table, err := parseFile(t, "testdata/crlf-bom.aliases")
	if err != nil {
		t.Fatal(err)
	}
	if r := table.Rules(); len(r) != 2 || r[0].String() != "me: you@x.org" || r[1].String() != "*: me@example.org" {
		t.Errorf("rules %v", r)
	}
}

// Every problem of a file is reported, each with its line, and nothing of the file applies.
func TestParseReportsEveryProblem(t *testing.T) {
	table, err := parseFile(t, "testdata/bad.aliases")
	var list problem.List
	if table != nil || !errors.As(err, &list) {
		t.Fatalf("table %v, error %v", table, err)
	}
	want := []struct {
		line int
		says string
	}{
		{3, "write only me"},
		{4, "stands already on line 1"},
		{5, "no colon"},
		{6, "no target"},
		{7, "empty target"},
		{8, "separated by commas"},
		{9, "quote is not closed"},
		{10, "no name"},
		{11, "[aliases] allow_pipe = true"},
		{12, "after via"},
		{13, "port"},
		{14, "in brackets"},
		{15, `'@' must be inside double quotes`},
		{17, "* stands alone"},
		{18, "without quotes"},
		{20, "first.last on line 19"},
		{21, "empty label"},
	}
	for i, p := range list {
		if i >= len(want) {
			t.Errorf("unexpected: %s", p)
			continue
		}
		if p.File != "testdata/bad.aliases" || p.Line != want[i].line || !strings.Contains(p.Reason, want[i].says) {
			t.Errorf("got %s, want line %d: …%s…", p, want[i].line, want[i].says)
		}
	}
	if len(list) < len(want) {
		t.Errorf("%d problems, want %d", len(list), len(want))
	}
}

func TestParseTargets(t *testing.T) {
	pipes := example
	pipes.AllowPipe = true
	for _, tt := range []struct {
		text string
		opt  Options
		want string // the targets as written back; "" is an error
	}{
		{`me`, example, `me@example.org`},
		{`ME, me, Me@EXAMPLE.org`, example, `ME@example.org`},
		{`Me@x.org, me@x.org`, example, `Me@x.org, me@x.org`},
		{`me@x.org, me@x.org via h`, example, `me@x.org, me@x.org via h`},
		{`*@x.org via h1/h2:26`, example, `*@x.org via h1/h2:26`},
		{`*`, example, `*@example.org`},
		{`a@x.org VIA 192.0.2.7:26`, example, `a@x.org via [192.0.2.7]:26`},
		{`a@x.org via Host.Example`, example, `a@x.org via host.example`},
		{`a@x.org via [host]`, example, ``},
		{`a@x.org via [192.0.2.7]26`, example, ``},
		{`a@x.org via [fe80::1%eth0]`, example, ``},
		{`a@x.org via h:70000`, example, ``},
		{`a@x.org via h//g`, example, ``},
		{`a@x.org via h / g`, example, ``},
		{`a@[192.0.2.1]`, example, `a@[192.0.2.1]`},
		{`"a#b, c"@x.org # comment`, example, `"a#b, c"@x.org`},
		{`a#b@x.org`, example, `a#b@x.org`},
		{`"#a"@x.org, "|a"@x.org`, example, `"#a"@x.org, "|a"@x.org`},
		{`"*"@x.org`, example, ``},
		{`"*"`, example, ``},
		{"a\u00a0@x.org", example, ``},
		{"a\x01@x.org", example, ``},
		{"\xff@x.org", example, ``},
		{`<a@x.org>`, example, ``},
		{`@x.org`, example, ``},
		{`|cat`, example, ``},
		{`|`, pipes, ``},
		{`| ""`, pipes, ``},
		{"|cat \x01", pipes, ``},
		{`| /bin/cat -n  "a b, c" x"y"z "\"\\"`, pipes, `|/bin/cat -n "a b, c" xyz "\"\\"`},
		{`|cat, me`, pipes, `|cat, me@example.org`},
	} {
		table, err := Parse("f", strings.NewReader("x: "+tt.text), tt.opt)
		if err != nil {
			if tt.want != "" {
				t.Errorf("%s: %v", tt.text, err)
			}
			continue
		}
		if got := table.Rules()[0].String(); got != "x: "+tt.want {
			t.Errorf("%s: %s, want x: %s", tt.text, got, tt.want)
		}
	}
}

func TestParseBounds(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for _, tt := range []struct{ name, text, says string }{
		{"long line", "ok: a\n" + long + ": a\n", "f:2: a line longer than 64 KiB"},
		{"large file", strings.Repeat("#"+strings.Repeat(" ", 1022)+"\n", maxFile/1024) + "#", "f: larger than 16 MiB"},
		{"many rules", strings.Repeat("a:b\n", maxRules+1), "f:1000001: more than 1000000 rules"},
		{"many problems", strings.Repeat("a\n", 5000), "f: more than 1000 problems"},
		{"many targets", "a: " + many(maxTargets+1) + "\n", "f:1: a: more than 1000 targets"},
	} {
		if len(tt.text) > 1<<20 && testnet.Stride(2) > 1 {
			continue
		}
		_, err := Parse("f", strings.NewReader(tt.text), example)
		var list problem.List
		if !errors.As(err, &list) || !slices.ContainsFunc(list, func(p problem.Problem) bool {
			return strings.HasPrefix(p.String(), tt.says)
		}) {
			t.Errorf("%s: %.200v", tt.name, err)
		}
	}
}

// many makes n targets.
func many(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = "n" + strconv.Itoa(i)
	}
	return strings.Join(names, ",")
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }

func TestParseReadError(t *testing.T) {
	_, err := Parse("f", failing{}, example)
	if err == nil || err.Error() != "f: reading: disk on fire" {
		t.Errorf("got %v", err)
	}
}

// world is a small set of hosted domains.
type world struct {
	tables    map[string]*Table
	mailboxes map[string]bool // by Key
}

func (w world) Table(domain string) *Table        { return w.tables[domain] }
func (w world) HasMailbox(a address.Address) bool { return w.mailboxes[a.Key()] }

func (w world) all() []*Table {
	var all []*Table
	for _, t := range w.tables {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *Table) int { return strings.Compare(a.Domain(), b.Domain()) })
	return all
}

// newWorld makes hosted domains from their alias files, and mailboxes.
func newWorld(t *testing.T, files map[string]string, mailboxes ...string) world {
	t.Helper()
	w := world{make(map[string]*Table), make(map[string]bool)}
	for domain, text := range files {
		opt := example
		opt.Domain = domain
		w.tables[domain] = mustParse(t, text, opt)
	}
	for _, m := range mailboxes {
		w.mailboxes[m] = true
	}
	return w
}
