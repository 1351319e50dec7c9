package queue

import (
	"strings"
	"testing"

	"relayd/address"
)

func TestMask(t *testing.T) {
	alias := addr(t, "shop@example.org")
	for _, test := range []struct{ target, text, want string }{
		{"jane@dest.test", "550 5.1.1 <jane@dest.test>: no such user", "550 5.1.1 <shop@example.org>: no such user"},
		{"jane@dest.test", "550 JANE@Dest.Test, jane@dest.test", "550 shop@example.org, shop@example.org"},
		{"jane@dest.test", "550 5.1.1 jane... User unknown", "550 5.1.1 shop... User unknown"},
		{"jane@dest.test", "550 host mx1.dest.test said no", "550 host example.org said no"},
		{"jane@dest.test", "550 SRS0=x=y=dest.test=jane@relay.test, jane%dest.test", "550 SRS0=x=y=shop@example.org@relay.test, shop@example.org"},
		{"jane@dest.test", "550 maryjane is not janet", "550 maryjane is not janet"},
		{"jane@dest.test", "550 maryjane@dest.test, latest.test, mydest.test", "550 maryshop@example.org, latest.test, mydest.test"},
		{"jane@dest.test", "İİİ jane@dest.test", "İİİ shop@example.org"},
		{"jane@dest.test", "\xff\xfejane@dest.test\xff", "\xff\xfeshop@example.org\xff"},
		{"550@dest.test", "550 5.1.1 <550@dest.test>", "550 5.1.1 <shop@example.org>"},
		{`"j d"@dest.test`, `550 <"j  d"@dest.test> j d`, `550 <shop@example.org> j d`},
		{"jürgen@bücher.test", "550 JÜRGEN@bücher.test xn--bcher-kva.test", "550 shop@example.org example.org"},
		{"a.b+c(d@dest.test", `550 "a.b+c(d"@dest.test`, "550 shop@example.org"},
		{"shop@example.org", "550 shop@example.org", "550 shop@example.org"},
	} {
		target := alias
		if !strings.Contains(test.target, "(") {
			target = addr(t, test.target)
		} else {
			target.Local, target.Domain = "a.b+c(d", "dest.test"
		}
		if got := mask(test.text, target, alias); got != test.want {
			t.Errorf("mask(%q, %s) = %q, want %q", test.text, test.target, got, test.want)
		}
	}
}

// A local part alone is masked where it stands for its mailbox, and never as a word of the sentence.
func TestMaskOfLocalPart(t *testing.T) {
	alias := addr(t, "shop@example.org")
	for _, test := range []struct{ local, text, want string }{
		{"you", "550 5.7.1 The mail that you sent was refused. If you think so, ask.", ""},
		{"mail", "550-5.7.26 This mail has been blocked, see https://support.google.com/mail/answer/81126", ""},
		{"mail", "550 5.2.2 The mailbox mail is full", ""},
		{"full", "552 5.2.2 mailbox full", ""},
		{"unknown", "550 5.1.1 user unknown", ""},
		{"user", "550 5.1.1 No such user here", ""},
		{"a", "550 5.1.1 not a mailbox (a) here", ""},
		{"ipv6", "550 5.7.1 does not meet IPv6 sending guidelines", ""},
		{"support.google", "550 see https://support.google.com/mail or support.google.com.", ""},
		{"550", "550 5.1.1 [550] (550) user 550", ""},
		{"e-mail", "550 5.7.1 Your e-mail was refused", ""},
		{"banana", "550 5.7.1 banana is no fruit of ours, bananas are", ""},

		{"you", "550 5.1.1 <you>: you have no mailbox", "550 5.1.1 <shop>: you have no mailbox"},
		{"550", "550 5.1.1 <550>", "550 5.1.1 <shop>"},
		{"mail", `550 no "mail" here, no 'mail'`, `550 no "shop" here, no 'shop'`},
		{"jane", "550 5.1.1 [jane] (JANE) {Jane}", "550 5.1.1 [shop] (shop) {shop}"},
		{"jane", "550 user=jane, to=jane, login: jane", "550 user=shop, to=shop, login: shop"},
		{"jane", "550 No such user jane, mailbox for jane, account jane.", "550 No such user shop, mailbox for shop, account shop."},
		{"jane", "550 jane... no; jane unknown; jane does not exist; jane is disabled", "550 shop... no; shop unknown; shop does not exist; shop is disabled"},
		{"jane.doe", "550 5.2.1 Nothing is for jane.doe: go away, Jane.Doe.", "550 5.2.1 Nothing is for shop: go away, shop."},
	} {
		want := test.want
		if want == "" {
			want = test.text
		}
		target := address.Address{Local: test.local, Domain: "dest.test"}
		if got := mask(test.text, target, alias); got != want {
			t.Errorf("mask(%q, %s) = %q, want %q", test.text, target, got, want)
		}
	}
}

// However it is written the whole address is masked, be its local part an ordinary word or not.
func TestMaskOfTheWholeAddress(t *testing.T) {
	for _, local := range []string{"you", "mail", "a", "550", "jane", "jane.doe", "jane+tag", "user", "ünal"} {
		target := address.Address{Local: local, Domain: "dest.test"}
		for _, form := range []string{
			"LOCAL@dest.test", "<LOCAL@dest.test>", "LOCAL@DEST.TEST", "LOCAL%dest.test", "dest.test!LOCAL", "b+LOCAL=dest.test@x.test",
			"SRS0=a=b=dest.test=LOCAL@x.test", "LOCAL at dest.test", "LOCAL (at) dest.test", "LOCAL[at]dest.test", "http://x.test/?to=LOCAL%40dest.test",
			"x-to:LOCAL@dest.test?subject=x", `"LOCAL"@dest.test`, "LOCAL @ dest.test",
		} {
			text := "550 5.1.1 " + strings.ReplaceAll(form, "LOCAL", local) + " is refused"
			got := strings.ToLower(mask(text, target, addr(t, "shop@example.org")))
			if strings.Contains(got, "dest.test") || strings.Contains(strings.TrimPrefix(got, "550 5.1.1"), local) && local != "a" {
				t.Errorf("mask(%q) = %q", text, got)
			}
		}
	}
	got := mask("see http://x.test/?jane%2Btag%40dest.test", address.Address{Local: "jane+tag", Domain: "dest.test"}, addr(t, "shop@example.org"))
	if got != "see http://x.test/?shop@example.org" {
		t.Error(got)
	}
}

func FuzzMask(f *testing.F) {
	f.Add("550 <jane.doe@dest.test> jane.doe at mx.dest.test")
	f.Add("jane.doejane.doe@dest.test@dest.test")
	f.Add("JANE.DOE%dest.test\xff\u0130")
	f.Fuzz(func(t *testing.T, text string) {
		got := mask(text, addr(t, "jane.doe@dest.test"), addr(t, "shop@example.org"))
		if strings.Contains(strings.ToLower(got), "jane.doe@dest.test") {
			t.Errorf("mask(%q) = %q", text, got)
		}
		if len(got) > len(text)*20 {
			t.Errorf("mask made %d octets of %d", len(got), len(text))
		}
	})
}
