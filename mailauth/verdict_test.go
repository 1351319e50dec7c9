package mailauth

import (
	"fmt"
	"testing"
	"time"
)

func TestFactsForOthers(t *testing.T) {
	const me = "me@example.org"
	type facts struct{ authentic, spfOnly, aligned, undecided, quarantine bool }
	for name, tt := range map[string]struct {
		story
		want facts
	}{
		"SPF alone":                    {story{zone: passes + rejecting, sender: me, from: me}, facts{authentic: true, spfOnly: true, aligned: true}},
		"SPF and DKIM":                 {story{zone: passes + rejecting, sender: me, from: me, signers: []string{"example.org"}}, facts{authentic: true, aligned: true}},
		"DKIM, and SPF fails":          {story{zone: fails + rejecting, sender: me, from: me, signers: []string{"example.org"}}, facts{authentic: true, aligned: true}},
		"DKIM, another sender's name":  {story{zone: rejecting, sender: "victim@else.example", from: me, signers: []string{"example.org"}}, facts{aligned: true}},
		"DKIM, sender of a subdomain":  {story{zone: rejecting, sender: "x@bounce.example.org", from: me, signers: []string{"example.org"}}, facts{authentic: true, aligned: true}},
		"DKIM without DMARC":           {story{sender: me, from: me, signers: []string{"example.org"}}, facts{aligned: true}},
		"SPF of another domain":        {story{zone: "else.example TXT v=spf1 +all\n" + rejecting, sender: "x@else.example", from: me}, facts{authentic: true, quarantine: true}},
		"a null sender":                {story{zone: passes + rejecting, from: me, signers: []string{"example.org"}}, facts{aligned: true}},
		"nothing, no policy":           {story{sender: me, from: me}, facts{}},
		"nothing, none":                {story{zone: "_dmarc.example.org TXT v=DMARC1; p=none", sender: me, from: me}, facts{}},
		"nothing, quarantine":          {story{zone: "_dmarc.example.org TXT v=DMARC1; p=quarantine", sender: me, from: me}, facts{quarantine: true}},
		"nothing, quarantine, testing": {story{zone: "_dmarc.example.org TXT v=DMARC1; p=quarantine; t=y", sender: me, from: me}, facts{}},
		"SPF hard fail, no policy":     {story{zone: fails, sender: me, from: me}, facts{quarantine: true}},
		"no answer for the key":        {story{zone: "sel._domainkey.example.org FAIL TXT", sender: me, from: me, signers: []string{"example.org"}}, facts{undecided: true}},
		"no answer for the policy":     {story{zone: "_dmarc.example.org FAIL", sender: me, from: me}, facts{undecided: true}},
		"no answer, but aligned":       {story{zone: passes + "_dmarc.example.org FAIL", sender: me, from: me}, facts{authentic: true, aligned: true}},
		"no author":                    {story{zone: passes, sender: me, from: "nobody"}, facts{authentic: true, aligned: true}},
	} {
		t.Run(name, func(t *testing.T) {
			v := tt.verdict(t)
			got := facts{v.Authentic(), v.PassedBySPFOnly(), v.Aligned("example.org"), v.Undecided(), v.Quarantine()}
			if got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestAlignedForOtherDomains(t *testing.T) {
	v := story{zone: passes, sender: "me@example.org", from: "me@else.example", signers: []string{"a.else.example", "b.co.uk"}}.verdict(t)
	for domain, want := range map[string]bool{
		"example.org": true, "sub.example.org": true, // by SPF
		"else.example": true, "x.else.example": true, // by DKIM
		"b.co.uk": true, "c.co.uk": false, "co.uk": false, "": false, "org": false, "third.example": false,
	} {
		if got := v.Aligned(domain); got != want {
			t.Errorf("Aligned(%q) = %v", domain, got)
		}
	}
}

func TestSameOrganization(t *testing.T) {
	s := newSite("_dmarc.dept.example.org TXT v=DMARC1; p=none; psd=n\n_dmarc.example.org TXT v=DMARC1; p=none\n_dmarc.broken.example FAIL")
	for _, tt := range []struct {
		a, b      string
		same, err bool
	}{
		{"mail.example.org", "example.org", true, false},
		{"dept.example.org", "example.org", false, false},
		{"a.hosted.example.net", "b.hosted.example.net", true, false},
		{"a.broken.example", "b.broken.example", true, true},
	} {
		same, err := s.SameOrganization(t.Context(), tt.a, tt.b)
		if same != tt.same || (err != nil) != tt.err {
			t.Errorf("%s and %s: %v, %v", tt.a, tt.b, same, err)
		}
	}
}

// One message is tried again and again while DNS does not answer for its policy, its key or its
// sender. What it is answered in the end depends on what is known without that.
func TestAfterFourHoursTheMissingAnswerIsLeftOut(t *testing.T) {
	const me = "me@example.org"
	for name, tt := range map[string]struct {
		story
		late int
	}{
		"the policy":                {story{zone: "_dmarc.example.org FAIL", sender: me, from: me}, 0},
		"the policy, SPF hard fail": {story{zone: fails + "_dmarc.example.org FAIL", sender: me, from: me}, 550},
		"the key, p=reject":         {story{zone: rejecting + "sel._domainkey.example.org FAIL TXT", sender: me, from: me, signers: []string{"example.org"}}, 550},
		"the key, SPF hard fail":    {story{zone: fails + "sel._domainkey.example.org FAIL TXT", sender: me, from: me, signers: []string{"example.org"}}, 550},
		"the SPF, p=reject":         {story{zone: rejecting + "example.org FAIL TXT", sender: me, from: me}, 550},
		"the SPF, no policy":        {story{zone: "example.org FAIL TXT", sender: me, from: me}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			zone := tt.zone + "\n"
			for _, d := range tt.signers {
				zone += keyLine(t, d)
			}
			s, text := newSite(zone), signedBy(t, mailFrom(tt.from), tt.signers...)
			for at := time.Duration(0); at < patience; at += time.Hour {
				if v := s.check(t, me, text); code(t, v, Reject) != 451 {
					t.Fatalf("after %v: %v", at, v.Disposition(Reject))
				}
				s.clock.Advance(time.Hour)
			}
			v := s.check(t, me, text)
			if got := code(t, v, Reject); got != tt.late || v.Undecided() {
				t.Errorf("after four hours: %v, undecided: %v", v.Disposition(Reject), v.Undecided())
			}
		})
	}
}

func TestAnAnswerEndsAnOutage(t *testing.T) {
	s := newSite("_dmarc.example.org FAIL")
	try := func(want int) {
		t.Helper()
		if got := code(t, s.check(t, "me@example.org", mailFrom("me@example.org")), Reject); got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
	try(451)
	s.clock.Advance(5 * time.Hour)
	try(0)
	delete(s.zone.records, "FAIL _dmarc.example.org")
	try(0)
	s.zone.add("_dmarc.example.org", "FAIL", "")
	try(451) // another outage
	s.clock.Advance(forgetting + time.Hour)
	try(451) // and one more, a day later
	if n := len(s.outages.of); n != 1 {
		t.Errorf("%d outages are remembered", n)
	}
}

func TestTheMemoryOfOutagesIsBounded(t *testing.T) {
	s := newSite("")
	for i := range maxOutages + 100 {
		v := &Verdict{SPF: SPF{Result: None}, DMARC: DMARC{unknown: true}}
		v.From.Local, v.From.Domain = "x", fmt.Sprintf("d%d.example", i)
		v.DMARC.missing = []string{policyQuestion(v.From.Domain)}
		s.outages.update(v)
	}
	if n := len(s.outages.of); n != maxOutages {
		t.Errorf("%d outages are remembered", n)
	}
}
