package mailauth

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestStepsOfTheTreeWalk(t *testing.T) {
	for domain, want := range map[string]string{
		"com":                "com",
		"example.com":        "example.com com",
		"a.mail.example.com": "a.mail.example.com mail.example.com example.com com",
		// The examples of RFC 9989 sections 4.10 and 5.1.7.
		"a.b.c.d.e.f.g.h.i.j.mail.example.com": "a.b.c.d.e.f.g.h.i.j.mail.example.com g.h.i.j.mail.example.com " +
			"h.i.j.mail.example.com i.j.mail.example.com j.mail.example.com mail.example.com example.com com",
		"mail.a.b.c.d.e.f.g.example.com": "mail.a.b.c.d.e.f.g.example.com c.d.e.f.g.example.com d.e.f.g.example.com " +
			"e.f.g.example.com f.g.example.com g.example.com example.com com",
	} {
		if got := steps(domain); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %v, want %v", domain, got, want)
		}
	}
}

func TestOrganization(t *testing.T) {
	for name, tt := range map[string]struct{ zone, domain, want string }{
		"the highest record": {`
			_dmarc.mail.example.com TXT v=DMARC1; p=none
			_dmarc.example.com TXT v=DMARC1; p=none`, "a.mail.example.com", "example.com"},
		"psd=n on the way": {`
			_dmarc.mail.example.com TXT v=DMARC1; p=none; psd=n
			_dmarc.example.com TXT v=DMARC1; p=none`, "a.mail.example.com", "mail.example.com"},
		"psd=n of its own": {`
			_dmarc.a.example.com TXT v=DMARC1; p=none; psd=n
			_dmarc.example.com TXT v=DMARC1; p=none`, "a.example.com", "a.example.com"},
		"below psd=y":                 {"_dmarc.com TXT v=DMARC1; p=none; psd=y", "a.mail.example.com", "example.com"},
		"below psd=y, two labels up":  {"_dmarc.gov.example TXT v=DMARC1; p=none; psd=y", "a.b.dept.gov.example", "dept.gov.example"},
		"right below psd=y":           {"_dmarc.gov.example TXT v=DMARC1; p=none; psd=y", "dept.gov.example", "dept.gov.example"},
		"a public suffix that writes": {"_dmarc.gov.example TXT v=DMARC1; p=none; psd=y", "gov.example", "gov.example"},
		"psd=y ends the walk": {`
			_dmarc.gov.example TXT v=DMARC1; p=none; psd=y
			_dmarc.example TXT v=DMARC1; p=none`, "a.dept.gov.example", "dept.gov.example"},
		"a record without use counts": {"_dmarc.example.com TXT v=DMARC1", "a.b.example.com", "example.com"},
		"two records are none":        {"_dmarc.b.example.com TXT v=DMARC1; p=none\n_dmarc.b.example.com TXT v=DMARC1; p=reject", "a.b.example.com", "example.com"},
		"another record beside it":    {"_dmarc.b.example.com TXT v=DMARC1; p=none\n_dmarc.b.example.com TXT v=spf1 -all", "a.b.example.com", "b.example.com"},
		"no record: the list":         {"", "a.b.example.co.uk", "example.co.uk"},
		"no record: a public suffix":  {"", "co.uk", "co.uk"},
		"no record: one label":        {"", "localhost", "localhost"},
		"no record: a private suffix": {"", "a.me.github.io", "me.github.io"},
		"a record below the shortcut": {"_dmarc.d.e.f.g.h.example.com TXT v=DMARC1; p=none; psd=n\n_dmarc.example.com TXT v=DMARC1; p=none",
			"a.b.c.d.e.f.g.h.example.com", "d.e.f.g.h.example.com"},
		"a record that the shortcut leaves out": {"_dmarc.c.d.e.f.g.h.example.com TXT v=DMARC1; p=none; psd=n\n_dmarc.example.com TXT v=DMARC1; p=none",
			"a.b.c.d.e.f.g.h.example.com", "example.com"},
	} {
		z := newZone(tt.zone)
		o := newWalker(z).organization(t.Context(), tt.domain)
		if o.domain != tt.want || o.err != nil {
			t.Errorf("%s: %+v, want %s", name, o, tt.want)
		}
		if len(z.asked) > 8 {
			t.Errorf("%s: %d queries", name, len(z.asked))
		}
	}
}

func TestATreeWalkWithoutAnswerIsAGuess(t *testing.T) {
	w := newWalker(newZone("_dmarc.example.co.uk FAIL"))
	if o := w.organization(t.Context(), "a.example.co.uk"); o.err == nil || o.domain != "example.co.uk" {
		t.Errorf("%+v", o)
	}
	for _, tt := range []struct {
		a, b      string
		same, err bool
	}{
		{"a.example.co.uk", "b.example.co.uk", true, true},
		{"a.example.co.uk", "other.co.uk", false, true},
		{"a.example.co.uk", "a.example.co.uk", true, false},
		{"a.example.co.uk", "example.com", false, false},
		{"", "example.com", false, false},
	} {
		same, err := w.sameOrganization(t.Context(), tt.a, tt.b)
		if same != tt.same || (err != nil) != tt.err {
			t.Errorf("%s and %s: %v, %v", tt.a, tt.b, same, err)
		}
	}
}

// Whatever is published, the organisational domain is the domain or one above it, it is found with
// eight questions, and a domain is of its own organisation.
func TestOrganizationProperty(t *testing.T) {
	labels := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "com", "uk", "co"}), 1, 12)
	rapid.Check(t, func(t *rapid.T) {
		domain := strings.Join(labels.Draw(t, "labels"), ".")
		z := newZone("")
		for _, name := range steps(domain) {
			if psd := rapid.SampledFrom([]string{"", "u", "y", "n", "x"}).Draw(t, name); psd != "" {
				z.add("_dmarc."+name, "TXT", "v=DMARC1; p=none; psd="+psd)
			}
		}
		org := newWalker(z).organization(t.Context(), domain)
		if org.err != nil || len(z.asked) > 8 {
			t.Fatalf("%+v after %v", org, z.asked)
		}
		if org.domain != domain && !strings.HasSuffix(domain, "."+org.domain) {
			t.Fatalf("%s is not above %s", org.domain, domain)
		}
		if same, err := newWalker(z).sameOrganization(t.Context(), domain, domain); !same || err != nil {
			t.Fatalf("%s is not of its own organisation: %v", domain, err)
		}
	})
}
