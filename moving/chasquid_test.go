package moving

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayd/address"
	"relayd/dkim"
	"relayd/problem"
	"relayd/users"
)

// The users were made by chasquid-util 1.11 of Debian: app with "secret", schön with "schön pass".
func TestAFolderOfChasquid(t *testing.T) {
	plan, err := Chasquid("testdata/chasquid", ChasquidOptions{BcryptCost: users.MinCost})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Hostname != "mx.example.org" || plan.MessageSizeMB != 25 || len(plan.Domains) != 1 {
		t.Fatalf("%+v", plan)
	}
	d := plan.Domains[0]
	if d.Name != "example.org" || d.Count != 2 || d.Old != 2 || string(d.Settings) != "suffix_separators = \"+-\"\n" {
		t.Errorf("%+v", d)
	}
	if want := "#off: | cat\n*: me@gmail.example\n"; !strings.HasSuffix(string(d.Aliases), "\n# null: | cat\n"+want) {
		t.Errorf("aliases:\n%s", d.Aliases)
	}
	for login, want := range map[string]bool{"app:secret": true, "schön:schön pass": true, "app:schön pass": false} {
		if got := rightLogin(t, d.Users, login); got != want {
			t.Errorf("%s: %v", login, got)
		}
	}
	wantLeft(t, plan.Left, "chasquid.conf:5: smtp_address", "chasquid.conf:6: smtp_address", "aliases:4: null: a command", "post-data: there are no hooks")
}

func rightLogin(t *testing.T, file []byte, login string) bool {
	t.Helper()
	table, err := users.Parse("users", bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	local, password, _ := strings.Cut(login, ":")
	verifier := users.NewVerifier(users.VerifierOptions{Cost: users.MinCost})
	right, err := verifier.Verify(context.Background(), users.Login{Table: table, User: address.Address{Local: local, Domain: "example.org"}, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	return right
}

func wantLeft(t *testing.T, left problem.List, want ...string) {
	t.Helper()
	if len(left) != len(want) {
		t.Errorf("left: %v", left)
	}
	for _, w := range want {
		if !strings.Contains(left.Error(), w) {
			t.Errorf("%q is not among what is left:\n%v", w, left)
		}
	}
}

// A tree is files by their names.
type tree map[string]string

func (files tree) dir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if _, given := files["chasquid.conf"]; !given {
		files["chasquid.conf"] = ""
	}
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestKindsOfPasswords(t *testing.T) {
	bcrypt, err := users.Hash("b", users.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	dir := tree{"domains/example.org/users": `
users: { key: "B" value: { bcrypt: { encrypted: "` + bcrypt + `" } } }
users < key: 'p' value { plain { password: "p" "q\x72" } }; >
users: [{ key: "n" value: { denied: {} } }]
`}.dir(t)
	plan, err := Chasquid(dir, ChasquidOptions{BcryptCost: users.MinCost})
	if err != nil {
		t.Fatal(err)
	}
	d := plan.Domains[0]
	if d.Count != 3 || d.Old != 0 || !bytes.Contains(d.Users, []byte("\nn:!$2y$04$")) {
		t.Errorf("%d, %s", d.Count, d.Users)
	}
	for login, want := range map[string]bool{"b:b": true, "p:pqr": true, "n:": false} {
		if got := rightLogin(t, d.Users, login); got != want {
			t.Errorf("%s: %v", login, got)
		}
	}
}

func TestWhatCannotBeReadIsAnError(t *testing.T) {
	user := func(value string) string { return `users: { key: "a" value: { ` + value + ` } }` }
	key := strings.Repeat("k", 32)
	for name, tt := range map[string]struct {
		file, text, want string
	}{
		"no colon":          {"domains/x.example/users", "\nusers \"x\"", "users:2: "},
		"an open brace":     {"domains/x.example/users", "users: {\n", "users:2: the closing '}' is missing"},
		"an open string":    {"domains/x.example/users", `users: { key: "a`, "users:1: "},
		"no password":       {"domains/x.example/users", user(""), "users:1: the user a: there is no password"},
		"another kind":      {"domains/x.example/users", user(`argon { x: "secret-value" }`), "no password of a kind"},
		"a name with slash": {"domains/x.example/users", `users: { key: "a/b" }`, "slash"},
		"twice":             {"domains/x.example/users", user(`plain { password: "x" }`) + "\n" + user(`plain { password: "x" }`), "users:2: the user a stands twice"},
		"too much memory":   {"domains/x.example/users", user(`scrypt { logN: 20 r: 8 p: 1 keyLen: 32 salt: "s" encrypted: "` + key + `" }`), "64 MiB"},
		"another length":    {"domains/x.example/users", user(`scrypt { logN: 14 r: 8 p: 1 keyLen: 16 salt: "s" encrypted: "` + key + `" }`), "keyLen"},
		"an alias twice":    {"domains/x.example/aliases", "a: b@c.example\na: d@c.example\n", "aliases:2: "},
		"a broken key":      {"domains/x.example/dkim:s1.pem", "nonsense", "dkim:s1.pem: "},
		"a suffix letter":   {"chasquid.conf", `suffix_separators: "x"`, "chasquid.conf:1: suffix_separators"},
		"a size":            {"chasquid.conf", `max_data_size_mb: many`, "chasquid.conf:1: max_data_size_mb"},
	} {
		t.Run(name, func(t *testing.T) {
			files := tree{tt.file: tt.text}
			files["domains/x.example/.keep"] = ""
			plan, err := Chasquid(files.dir(t), ChasquidOptions{BcryptCost: users.MinCost})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v, want %q; %+v", err, tt.want, plan)
			}
			if strings.Contains(err.Error(), "secret-value") {
				t.Errorf("the complaint quotes what may be secret: %v", err)
			}
		})
	}
	if _, err := Chasquid(t.TempDir(), ChasquidOptions{}); err == nil || !strings.Contains(err.Error(), "chasquid.conf") {
		t.Errorf("of an empty folder: %v", err)
	}
}

func TestKeysAndCertificates(t *testing.T) {
	pem, err := dkim.Generate("ed25519")
	if err != nil {
		t.Fatal(err)
	}
	dir := tree{
		"domains/a.example/dkim:S2024.pem":     string(pem),
		"domains/b.example/dkim_selector":      "old\n",
		"certs/b.example/dkim_privkey.pem":     string(pem),
		"domains/c.example/dkim_selector":      "old\n",
		"domains/c.example/notes":              "x",
		"certs/mx.example/fullchain.pem":       "chain",
		"certs/mx.example/privkey.pem":         "key",
		"certs/half.example/fullchain.pem":     "chain",
		"certs/README":                         "x",
		"elsewhere/linked.example/privkey.pem": "key",
	}.dir(t)
	links := errors.Join(
		os.Symlink("../../certs/mx.example/fullchain.pem", filepath.Join(dir, "elsewhere/linked.example/fullchain.pem")),
		os.Symlink("../elsewhere/linked.example", filepath.Join(dir, "certs/linked.example")),
	)
	if links != nil {
		t.Fatal(links)
	}
	plan, err := Chasquid(dir, ChasquidOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if a, b := plan.Domains[0].Keys["s2024"], plan.Domains[1].Keys["old"]; !bytes.Equal(a, pem) || !bytes.Equal(b, pem) {
		t.Errorf("keys: %q, %q", a, b)
	}
	if len(plan.Certs) != 2 || plan.Certs[0].Name != "linked.example" || string(plan.Certs[0].Chain) != "chain" || string(plan.Certs[1].Key) != "key" {
		t.Errorf("certificates: %+v", plan.Certs)
	}
	wantLeft(t, plan.Left, "half.example: no certificate", "c.example/notes: ", "certs/c.example/dkim_privkey.pem: no key was taken")
}

func TestCommandsStayWhereTheyAreAllowed(t *testing.T) {
	dir := tree{"domains/a.example/aliases": "x: |cat\n"}.dir(t)
	plan, err := Chasquid(dir, ChasquidOptions{AllowPipe: true})
	if err != nil || string(plan.Domains[0].Aliases) != "x: |cat\n" || len(plan.Left) != 0 {
		t.Errorf("%+v, %v", plan, err)
	}
}

func FuzzText(f *testing.F) {
	seed, err := os.ReadFile("testdata/chasquid/domains/example.org/users")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(seed))
	f.Add("a: [1, 'x' \"\\101\\u00e9\\U0001F600\\n\"] b < c { d: -1.5e3 } >; # end")
	f.Add("a {{{{{{{{{{")
	f.Add("a: \"\\x\"")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseText(text)
		if err == nil {
			checkMessage(t, m, strings.Count(text, "\n")+1, 0)
			return
		}
		le, ok := errors.AsType[*lineError](err)
		if !ok || le.line < 1 || le.line > strings.Count(text, "\n")+1 {
			t.Fatalf("%v", err)
		}
	})
}

func checkMessage(t *testing.T, m message, lines, depth int) {
	if depth > maxDepth {
		t.Fatal("too deep")
	}
	for _, f := range m {
		if f.name == "" || f.line < 1 || f.line > lines {
			t.Fatalf("%+v", f)
		}
		checkMessage(t, f.sub, lines, depth+1)
	}
}
