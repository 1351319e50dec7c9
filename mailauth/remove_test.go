package mailauth

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const ours = "mx.relay.example"

func TestRemoveResultsInOurName(t *testing.T) {
	for _, field := range []string{
		"Authentication-Results: mx.relay.example; spf=pass\r\n",
		"authentication-RESULTS:MX.Relay.Example;none\r\n",
		"Authentication-Results : mx.relay.example 1; spf=pass\r\n",
		"Authentication-Results:\t\tmx.relay.example\r\n",
		"Authentication-Results:\r\n mx.relay.example;\r\n\tspf=pass\r\n dkim=pass\r\n",
		"Authentication-Results: (a (nested) \\) comment) mx.relay.example (1) 1 ; spf=pass\r\n",
		"Authentication-Results: \"mx.relay.example\"; spf=pass\r\n",
		"Authentication-Results: \"mx.re\\lay.example\" 1; spf=pass\r\n",
		"Authentication-Results: \"mx.relay.example\r\n",
		"Authentication-Results: mx.relay.example.; spf=pass\r\n",
		"Authentication-Results: mx.relay.example/1; spf=pass\r\n",
		"Authentication-Results: mx.relay.example(x); spf=pass\r\n",
		"Authentication-Results: mx.relay.example, spf=pass\r\n",
		"Authentication-Results: mx.relay.example\x00; spf=pass\r\n",
		"Authentication-Results: mx.relay.example; spf=pass",
	} {
		before, after := "Received: by x\r\nSubject: a\r\n b\r\n", "From: me@example.org\r\n"
		if !strings.HasSuffix(field, "\r\n") {
			after = ""
		}
		if got := string(RemoveResults([]byte(before+field+after), ours)); got != before+after {
			t.Errorf("%q: %q", field, got)
		}
	}
	field := "Authentication-Results: mx.bücher.example; spf=pass\r\n"
	if got := RemoveResults([]byte(field), "mx.xn--bcher-kva.example"); len(got) != 0 {
		t.Errorf("U-labels: %q", got)
	}
}

func TestRemoveResultsKeepsAllElse(t *testing.T) {
	for _, header := range []string{
		"",
		"\r\n",
		"Authentication-Results: mx.other.example; spf=pass\r\n",
		"Authentication-Results: mx.relay.example.org; spf=pass\r\n",
		"Authentication-Results: sub.mx.relay.example; spf=pass\r\n",
		"Authentication-Results: (mx.relay.example) other; spf=pass\r\n",
		"Authentication-Results: (mx.relay.example; spf=pass\r\n",
		"Authentication-Results: other; spf=pass smtp.helo=mx.relay.example\r\n",
		"Authentication-Results: spf=pass; mx.relay.example\r\n",
		"Authentication-Results:\r\n",
		"Authentication-Results: ;\r\n",
		"Authentication-Results: \"\"; mx.relay.example\r\n",
		"ARC-Authentication-Results: i=1; mx.relay.example; spf=pass\r\n",
		"X-Authentication-Results: mx.relay.example; spf=pass\r\n",
		"Subject: x\r\n Authentication-Results: mx.relay.example; spf=pass\r\n",
		" Authentication-Results: mx.relay.example; spf=pass\r\nFrom: x\r\n",
		"no field\r\nFrom : x\r\n\tfolded\r\n",
	} {
		in := []byte(header)
		if got := RemoveResults(in, ours); string(got) != header || len(in) > 0 && &got[0] != &in[0] {
			t.Errorf("%q: %q", header, got)
		}
	}
}

// The fields that are kept are kept as they are, whatever else is in between.
func TestRemoveResultsProperty(t *testing.T) {
	kept := rapid.SampledFrom([]string{"From: me@example.org\r\n", "Subject: a\r\n b\r\n\tc\r\n", "junk\r\n", "X:\r\n", "Authentication-Results: other; spf=pass\r\n"})
	removed := rapid.SampledFrom([]string{"Authentication-Results: mx.relay.example; a\r\n", "AUTHENTICATION-RESULTS:\r\n (c)\r\n mx.relay.example\r\n b\r\n"})
	rapid.Check(t, func(t *rapid.T) {
		var all, want strings.Builder
		for range rapid.IntRange(0, 8).Draw(t, "fields") {
			if rapid.Bool().Draw(t, "ours") {
				all.WriteString(removed.Draw(t, "removed"))
				continue
			}
			f := kept.Draw(t, "kept")
			all.WriteString(f)
			want.WriteString(f)
		}
		in := []byte(all.String())
		got := RemoveResults(in, ours)
		if string(got) != want.String() || string(in) != all.String() {
			t.Fatalf("%q, want %q", got, want.String())
		}
	})
}

func FuzzRemoveResults(f *testing.F) {
	f.Add([]byte("From: x\r\nAuthentication-Results: (a(b)\\)) \"mx.relay.example\" 1;\r\n spf=pass\r\nTo: y\r\n"))
	f.Add([]byte("Authentication-Results: mx.relay.example"))
	f.Add([]byte("\n\r\n Authentication-Results:\n\t(\\"))
	f.Fuzz(func(t *testing.T, header []byte) {
		before := bytes.Clone(header)
		got := RemoveResults(header, ours)
		if !bytes.Equal(header, before) {
			t.Fatal("the header was changed")
		}
		// What is left is what was there, without some fields, and has nothing more to remove.
		rest := header
		for len(got) > 0 && len(rest) > 0 {
			end := fieldEnd(rest, 0)
			if field := rest[:end]; bytes.HasPrefix(got, field) && !isResultsOf(field, ours) {
				got = got[end:]
			}
			rest = rest[end:]
		}
		if len(got) > 0 {
			t.Fatalf("%q is new", got)
		}
	})
}
