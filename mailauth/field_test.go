package mailauth

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"relayd/dkim"
	"relayd/message"
)

func TestAuthenticationResults(t *testing.T) {
	const me = "me@example.org"
	for name, tt := range map[string]struct {
		story
		want string
	}{
		"all pass": {story{zone: passes + rejecting + "mail.client.example TXT v=spf1 +all\n", sender: me, from: me, signers: []string{"example.org"}},
			"Authentication-Results: mx.relay.example;\r\n" +
				" iprev=permerror policy.iprev=192.0.2.1;\r\n" +
				" spf=pass smtp.mailfrom=example.org;\r\n" +
				" spf=pass smtp.helo=mail.client.example;\r\n" +
				" dkim=pass header.d=example.org header.s=sel header.a=ed25519-sha256;\r\n" +
				" dmarc=pass (p=reject) header.from=example.org\r\n"},
		"nothing": {story{sender: me, from: me},
			"Authentication-Results: mx.relay.example;\r\n" +
				" iprev=permerror policy.iprev=192.0.2.1;\r\n" +
				" spf=none smtp.mailfrom=example.org;\r\n" +
				" dkim=none;\r\n" +
				" dmarc=none header.from=example.org\r\n"},
		"a null sender": {story{zone: "_dmarc.example.org TXT v=DMARC1; p=reject; t=y", from: me},
			"Authentication-Results: mx.relay.example;\r\n" +
				" iprev=permerror policy.iprev=192.0.2.1;\r\n" +
				" spf=none smtp.helo=mail.client.example;\r\n" +
				" dkim=none;\r\n" +
				" dmarc=fail (p=reject t=y) header.from=example.org\r\n"},
		"no answers": {story{zone: "example.org FAIL\n_dmarc.example.org FAIL\nsel._domainkey.example.org FAIL TXT", sender: me, from: me, signers: []string{"example.org"}},
			"Authentication-Results: mx.relay.example;\r\n" +
				" iprev=permerror policy.iprev=192.0.2.1;\r\n" +
				" spf=temperror reason=\"DNS does not answer\" smtp.mailfrom=example.org;\r\n" +
				" dkim=temperror reason=\"key unavailable: DNS does not answer\"\r\n" +
				" header.d=example.org header.s=sel header.a=ed25519-sha256;\r\n" +
				" dmarc=temperror reason=\"DNS does not answer\" header.from=example.org\r\n"},
		"no author": {story{zone: "example.org TXT v=spf1 nonsense", sender: me, from: "nobody"},
			"Authentication-Results: mx.relay.example;\r\n" +
				" iprev=permerror policy.iprev=192.0.2.1;\r\n" +
				" spf=permerror reason=\"syntax error in ?nonsense?\" smtp.mailfrom=example.org;\r\n" +
				" dkim=none;\r\n" +
				" dmarc=none reason=\"the From field is not an address: ?nobody?\"\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tt.verdict(t).AuthenticationResults(); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

// Whatever is in a verdict, the field is one field, folded, of lines that a mail may have, and ours.
func checkField(t interface {
	Fatalf(string, ...any)
}, field string) {
	h, err := message.ParseHeader([]byte(field))
	if err != nil || len(h.Values("Authentication-Results")) != 1 || string(h.Raw()) != field {
		t.Fatalf("%q: %v", field, err)
	}
	if strings.Count(field, "\n") != strings.Count(field, "\r\n") || strings.Count(field, "\r") != strings.Count(field, "\n") {
		t.Fatalf("bare CR or LF in %q", field)
	}
	for i, line := range strings.SplitAfter(strings.TrimSuffix(field, "\r\n"), "\r\n") {
		if i > 0 && (line[0] != ' ' || strings.TrimSpace(line) == "") || len(line) > 400 {
			t.Fatalf("line %q", line)
		}
		if len(line) > maxLine+2 && strings.Count(strings.TrimSpace(line), " ") > 0 {
			t.Fatalf("a line of %d octets that could be folded: %q", len(line), line)
		}
	}
	for i := range len(field) {
		if c := field[i]; c > '~' || c < ' ' && c != '\r' && c != '\n' {
			t.Fatalf("byte %q in %q", c, field)
		}
	}
	if rest := RemoveResults([]byte(field), "mx.relay.example"); len(rest) != 0 {
		t.Fatalf("%q is not taken for ours: %q", field, rest)
	}
}

func TestNothingInjectsIntoTheField(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ a"\\;()\r\n]{0,60}`))
		domain := rapid.SampledFrom([]string{"", "example.org", "[192.0.2.1]", "[IPv6:2001:db8::1]", strings.Repeat("abcdefg.", 31) + "org"})
		v := &Verdict{hostname: "mx.relay.example", SPF: SPF{Domain: domain.Draw(t, "spf"), Result: PermError, Err: errors.New(text.Draw(t, "spf reason"))}}
		v.HeloSPF = SPF{Domain: domain.Draw(t, "helo"), Result: Pass}
		v.sender.Local = rapid.SampledFrom([]string{"", "me"}).Draw(t, "sender")
		v.From.Domain = domain.Draw(t, "from")
		v.DMARC = DMARC{Result: TempError, Err: errors.New(text.Draw(t, "dmarc reason"))}
		for range rapid.IntRange(0, 3).Draw(t, "signatures") {
			v.DKIM = append(v.DKIM, dkim.Result{Domain: domain.Draw(t, "d"), Selector: "s", Kind: dkim.Fail, Err: errors.New(text.Draw(t, "dkim reason"))})
		}
		field := v.AuthenticationResults()
		checkField(t, field)
		quotes := strings.Count(field, `"`)
		if quotes%2 != 0 {
			t.Fatalf("%d quotes in %q", quotes, field)
		}
	})
}
