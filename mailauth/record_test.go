package mailauth

import (
	"strings"
	"testing"
)

func TestRecord(t *testing.T) {
	type want struct{ p, sp, np Policy }
	reject := want{PolicyReject, PolicyReject, PolicyReject}
	none := want{PolicyNone, PolicyNone, PolicyNone}
	for txt, w := range map[string]want{
		"v=DMARC1; p=reject":                                reject,
		"v=DMARC1;p=reject;":                                reject,
		"v = DMARC1 ; p = reject ; ":                        reject,
		"V=DMARC1; P=Reject":                                reject,
		"v=DMARC1; sp=none; p=reject":                       {PolicyReject, PolicyNone, PolicyNone},
		"v=DMARC1; p=none; np=reject":                       {PolicyNone, PolicyNone, PolicyReject},
		"v=DMARC1; p=none; sp=quarantine; np=reject":        {PolicyNone, PolicyQuarantine, PolicyReject},
		"v=DMARC1; p=reject; pct=0; rf=afrf; ri=1; x=y; =;": reject,
		"v=DMARC1; p=reject; p=none":                        reject,
		"v=DMARC1; nonsense; p=reject; ;;":                  reject,
		"v=DMARC1; rua=mailto:a@example.org":                none,
		"v=DMARC1; p=monitor; rua=mailto:a@example.org":     none,
		"v=DMARC1; p=reject; sp=x; rua=junk, mailto:a@b.c":  none,
		"v=DMARC1; p=reject; np=; rua=https://a.example/":   none,
	} {
		r, ok := parseRecord(txt)
		if got := (want{r.policy, r.subdomain, r.nonexistent}); !ok || !r.usable || got != w {
			t.Errorf("%q: %v %+v", txt, ok, r)
		}
	}
}

func TestRecordsWithoutUse(t *testing.T) {
	for _, txt := range []string{"v=DMARC1", "v=DMARC1;", "v=DMARC1; p=", "v=DMARC1; p=monitor",
		"v=DMARC1; p=reject; sp=x", "v=DMARC1; p=reject; np=y; rua=", "v=DMARC1; rua=nowhere", "v=DMARC1; sp=reject"} {
		if r, ok := parseRecord(txt); !ok || r.usable {
			t.Errorf("%q: %v %+v", txt, ok, r)
		}
	}
}

func TestWhatIsNoRecord(t *testing.T) {
	for _, txt := range []string{"", "p=reject; v=DMARC1", "v=dmarc1; p=reject", "v=DMARC2; p=reject", "v=DMARC11; p=reject",
		"v=DMARC1 p=reject", "vv=DMARC1; p=reject", ";v=DMARC1; p=reject", "v=spf1 -all",
		"v=DMARC1; p=reject;" + strings.Repeat(" ", maxRecord)} {
		if r, ok := parseRecord(txt); ok {
			t.Errorf("%.40q is %+v", txt, r)
		}
	}
}

func TestFlagsOfARecord(t *testing.T) {
	r, _ := parseRecord("v=DMARC1; p=reject; ADKIM=S; aspf=s; t=Y; psd=N")
	if !r.strictDKIM || !r.strictSPF || !r.testing || r.psd != "n" {
		t.Errorf("%+v", r)
	}
	r, _ = parseRecord("v=DMARC1; p=reject; adkim=strict; aspf=; t=yes; psd=maybe")
	if r.strictDKIM || r.strictSPF || r.testing || r.psd != "u" {
		t.Errorf("%+v", r)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add("v=DMARC1; p=reject; sp=none; np=quarantine; psd=y; adkim=s; aspf=s; t=y; rua=mailto:a@b.c")
	f.Add("v=DMARC1;;;=;p==;rua=,,:")
	f.Add("v = DMARC1\t; p \t= none")
	f.Fuzz(func(t *testing.T, txt string) {
		r, ok := parseRecord(txt)
		if !ok && r != (record{}) {
			t.Fatalf("%+v of what is no record", r)
		}
		for _, p := range []Policy{r.policy, r.subdomain, r.nonexistent} {
			if r.usable && p != PolicyNone && p != PolicyQuarantine && p != PolicyReject {
				t.Fatalf("policy %q", p)
			}
		}
	})
}
