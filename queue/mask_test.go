package queue

import (
	"strings"
	"testing"
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
		{`"j d"@dest.test`, `550 <"j  d"@dest.test> j d`, `550 <shop@example.org> shop`},
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
		if got := Mask(test.text, target, alias); got != test.want {
			t.Errorf("Mask(%q, %s) = %q, want %q", test.text, test.target, got, test.want)
		}
	}
}

func FuzzMask(f *testing.F) {
	f.Add("550 <jane.doe@dest.test> jane.doe at mx.dest.test")
	f.Add("jane.doejane.doe@dest.test@dest.test")
	f.Add("JANE.DOE%dest.test\xff\u0130")
	f.Fuzz(func(t *testing.T, text string) {
		got := Mask(text, addr(t, "jane.doe@dest.test"), addr(t, "shop@example.org"))
		if strings.Contains(strings.ToLower(got), "jane.doe@dest.test") {
			t.Errorf("Mask(%q) = %q", text, got)
		}
		if len(got) > len(text)*20 {
			t.Errorf("Mask made %d octets of %d", len(got), len(text))
		}
	})
}
