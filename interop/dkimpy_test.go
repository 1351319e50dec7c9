//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"relayd/dkim"
)

// A signature is what python3-dkim found out about one.
type signature struct {
	Domain, Selector, Algorithm string
	OK                          bool
	Error                       string
}

func (s signature) String() string {
	return fmt.Sprintf("d=%s s=%s a=%s ok=%v %s", s.Domain, s.Selector, s.Algorithm, s.OK, s.Error)
}

// An author signs messages before they are sent, with python3-dkim and a key of his own.
type author struct {
	t       testing.TB
	domain  string
	keyFile string
	record  string
}

const authorSelector = "author"

func newAuthor(t testing.TB, domain string) *author {
	t.Helper()
	a := &author{t: t, domain: domain, keyFile: filepath.Join(t.TempDir(), "key.pem")}
	mustRun(t, exec.Command(peer(t, "openssl"), "genrsa", "-out", a.keyFile, "2048"))
	text, err := os.ReadFile(a.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := dkim.ParseKey(domain, authorSelector, text)
	if err != nil {
		t.Fatal(err)
	}
	a.record = key.Record().Value
	return a
}

// records are the author's part of DNS.
func (a *author) records() map[string]string {
	return map[string]string{authorSelector + "._domainkey." + a.domain: a.record}
}

// sign returns the messages signed where python3-dkim can do it, and says which it could.
func (a *author) sign(messages map[string][]byte) (out map[string][]byte, signed map[string]bool) {
	a.t.Helper()
	in, outDir := writeAll(a.t, messages), a.t.TempDir()
	text := mustRun(a.t, exec.Command(python, "-I", "testdata/dkim_sign.py", in, outDir, a.keyFile, a.domain, authorSelector, writeJSON(a.t, a.records())))
	var reasons map[string]string
	if err := json.Unmarshal([]byte(text), &reasons); err != nil {
		a.t.Fatal(err)
	}
	out, signed = map[string][]byte{}, map[string]bool{}
	for name := range messages {
		message, err := os.ReadFile(filepath.Join(outDir, name))
		if err != nil {
			a.t.Fatal(err)
		}
		out[name], signed[name] = message, reasons[name] == ""
	}
	return out, signed
}

// verifyAll checks all signatures of all messages with python3-dkim.
func verifyAll(t testing.TB, messages map[string][]byte, records ...map[string]string) map[string][]signature {
	t.Helper()
	all := map[string]string{}
	for _, list := range records {
		for name, value := range list {
			all[name] = value
		}
	}
	text := mustRun(t, exec.Command(python, "-I", "testdata/dkim_verify.py", writeAll(t, messages), writeJSON(t, all)))
	var results map[string][]signature
	if err := json.Unmarshal([]byte(text), &results); err != nil {
		t.Fatal(err)
	}
	return results
}

// bySelector are the signatures by selector.
func bySelector(list []signature) map[string]signature {
	m := map[string]signature{}
	for _, s := range list {
		m[s.Selector] = s
	}
	return m
}

func writeAll(t testing.TB, messages map[string][]byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range messages {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func writeJSON(t testing.TB, v any) (file string) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "dns.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
