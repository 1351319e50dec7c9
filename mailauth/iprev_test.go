package mailauth

import (
	"net/netip"
	"strings"
	"testing"
)

func TestIPRev(t *testing.T) {
	const passing = "192.0.2.1 PTR mail.client.example\nmail.client.example A 192.0.2.1\n"
	var many strings.Builder
	for range maxNames {
		many.WriteString("192.0.2.1 PTR other.example\n")
	}
	for name, tt := range map[string]struct {
		zone, ip string
		want     IPRev
	}{
		"a name that leads back":       {passing, client, IPRev{Pass, "mail.client.example"}},
		"mapped into IPv6":             {passing, "::ffff:192.0.2.1", IPRev{Pass, "mail.client.example"}},
		"the second of two":            {"192.0.2.1 PTR other.example\n" + passing, client, IPRev{Pass, "mail.client.example"}},
		"IPv6":                         {"2001:db8::1 PTR six.example\nsix.example AAAA 2001:db8::1\nsix.example A 192.0.2.1\n", "2001:db8::1", IPRev{Pass, "six.example"}},
		"a name that leads elsewhere":  {"192.0.2.1 PTR bank.example\nbank.example A 198.51.100.1\n", client, IPRev{Result: Fail}},
		"a name that leads nowhere":    {"192.0.2.1 PTR bank.example\n", client, IPRev{Result: Fail}},
		"what is no name":              {"192.0.2.1 PTR a)b.example\na)b.example A 192.0.2.1\n", client, IPRev{Result: Fail}},
		"more names than are followed": {many.String() + passing, client, IPRev{Result: Fail}},
		"no name":                      {"", client, IPRev{Result: PermError}},
		"no answer":                    {"192.0.2.1 FAIL PTR\n", client, IPRev{Result: TempError}},
		"no answer for the name":       {"192.0.2.1 PTR mail.client.example\nmail.client.example FAIL A\n", client, IPRev{Result: TempError}},
		"at home":                      {"10.0.0.1 PTR mail.client.example\nmail.client.example A 10.0.0.1\n", "10.0.0.1", IPRev{Result: None}},
		"on this machine":              {"", "::1", IPRev{Result: None}},
		"nowhere":                      {"", "", IPRev{Result: None}},
	} {
		t.Run(name, func(t *testing.T) {
			ip, _ := netip.ParseAddr(tt.ip)
			s := newSite(tt.zone)
			text := "From: me@example.org\r\n\r\nHello\r\n"
			v, err := s.Check(t.Context(), Message{IP: ip, Header: parseHeader(t, text), Text: strings.NewReader(text)})
			if err != nil || v.IPRev != tt.want {
				t.Errorf("%+v, %v; want %+v", v.IPRev, err, tt.want)
			}
			field := strings.Join(strings.Fields(v.AuthenticationResults()), " ")
			if shown := strings.Contains(field, "; iprev="+string(tt.want.Result)+" policy.iprev="); shown != (tt.want.Result != None) {
				t.Errorf("%s", field)
			}
		})
	}
}

func TestShown(t *testing.T) {
	const me = "me@news.example.org"
	for name, tt := range map[string]struct {
		story
		want string
	}{
		"signed by the author":      {story{from: me, sender: "x@spammer.example", signers: []string{"news.example.org"}}, "example.org"},
		"sent by a list":            {story{zone: "list.example TXT v=spf1 +all\n", from: me, sender: "bounces@list.example"}, "list.example"},
		"claimed by the bare From":  {story{from: me, sender: me}, ""},
		"signed by somebody else's": {story{from: me, sender: me, signers: []string{"spammer.example"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tt.verdict(t).Shown(); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
