package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"relayd/dkim"
	"relayd/internal/testnet"
)

const unsigned = "From: me@example.org\r\nTo: you@example.net\r\nSubject: hello\r\n\r\nOne line.\r\nAnother.\r\n"

// signedBy is unsigned with signatures of the keys with these selectors, and their zone.
func signedBy(t *testing.T, selectors ...string) (message, zone string) {
	t.Helper()
	var keys []*dkim.Key
	for _, selector := range selectors {
		text, err := dkim.Generate("ed25519")
		if err != nil {
			t.Fatal(err)
		}
		key, err := dkim.ParseKey("example.org", selector, text)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		zone += key.Record().Zone() + "\n"
	}
	fields, err := dkim.Sign(strings.NewReader(unsigned), keys, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return fields + unsigned, zone
}

func TestDKIMVerify(t *testing.T) {
	one, zoneOne := signedBy(t, "one")
	two, zoneTwo := signedBy(t, "one2", "gone")
	zoneTwo, _, _ = strings.Cut(zoneTwo, "\n") // the second key is not published
	dns := testnet.NewDNS(t, "example.org. IN SOA ns.example.org. me.example.org. 1 1 1 1 1\n"+zoneOne+zoneTwo+"\n")
	s := newSite(t)
	s.write("relayd.toml", fmt.Sprintf("hostname = \"mx.example.com\"\n[dns]\nservers = [%q]\n", dns.Addr()))
	tests := []struct {
		name, message string
		code          int
		lines         []string
	}{
		{"as it was sent", one, 0, []string{"pass: d=example.org s=one a=ed25519-sha256"}},
		{"with the line ends of Unix", strings.ReplaceAll(one, "\r\n", "\n"), 0, []string{"pass: "}},
		{"changed", strings.Replace(one, "Another", "Other", 1), 1, []string{"fail: d=example.org s=one a=ed25519-sha256: "}},
		{"with a key that is not published", two, 0, []string{"pass: d=example.org s=one2", "permerror: d=example.org s=gone"}},
		{"changed under two", two + "more\r\n", 1, []string{"fail: ", "permerror: "}},
	}
	for _, tt := range tests {
		s.write("message", tt.message)
		out, _ := s.run(tt.code, "dkim-verify "+s.dir+"/message")
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if len(lines) != len(tt.lines) {
			t.Errorf("%s: %s", tt.name, out)
			continue
		}
		for i, want := range tt.lines {
			if !strings.HasPrefix(lines[i], want) {
				t.Errorf("%s: %q, want %q", tt.name, lines[i], want)
			}
		}
		// The same from standard input.
		var in bytes.Buffer
		args := []string{"-c", s.dir + "/relayd.toml", "dkim-verify"}
		if code := run(context.Background(), args, streams{strings.NewReader(tt.message), &in, &in}); code != tt.code || in.String() != out {
			t.Errorf("%s from standard input: exit code %d, %s", tt.name, code, &in)
		}
	}
	s.write("message", one)
	if out, _ := s.run(0, "dkim-verify --json "+s.dir+"/message"); !strings.Contains(out, `"result": "pass"`) {
		t.Errorf("as JSON: %s", out)
	}
}
