package digest

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"relayd/message"
)

// format is the whole message (RFC 5322), from the domain's mailer daemon to its postmaster. What it
// quotes of others was made fit for a line by note, and is indented or follows words of ours.
func (p *page) format(domain, hostname string, now time.Time) []byte {
	now = now.UTC()
	body := p.body(domain, hostname)
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("From: Mail Delivery System <MAILER-DAEMON@%s>", domain)
	line("To: <postmaster@%s>", domain)
	line("Subject: %s that could not be forwarded", messages(p.total()))
	line("Date: %s", message.Date(now))
	line("Message-ID: <digest.%s.%s@%s>", now.Format("20060102150405"), domain, hostname)
	line("Auto-Submitted: auto-generated") // RFC 3834 section 5
	line("MIME-Version: 1.0")
	line("Content-Type: text/plain; charset=utf-8")
	if !isASCII(body) {
		line("Content-Transfer-Encoding: 8bit")
	}
	line("")
	b.Write(body)
	return b.Bytes()
}

// body is what a person reads.
func (p *page) body(domain, hostname string) []byte {
	const minute = "2006-01-02 15:04"
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("This mail for addresses in %s could not be forwarded. Times are UTC.", domain)
	slices.SortStableFunc(p.Groups, func(a, b group) int {
		return cmp.Or(cmp.Compare(a.Alias, b.Alias), cmp.Compare(a.Target, b.Target))
	})
	for _, g := range p.Groups {
		line("\r\nFor %s, to %s", g.Alias, g.Target)
		line("    %s", g.Reply)
		for _, m := range g.Mails {
			line("    %s  from <%s>  (%s)", m.At.UTC().Format(minute), m.Sender, m.ID)
		}
		if g.More > 0 {
			line("    and %d more", g.More)
		}
	}
	if p.More > 0 {
		line("\r\nand %d more", p.More)
	}
	line("\r\nSenders who are known to be real have been told. The log of %s tells more\r\nof each message by what stands in brackets.", hostname)
	line("`digest = false` in domain.toml ends these mails.")
	return b.Bytes()
}

func messages(n int) string {
	if n == 1 {
		return "One message"
	}
	return fmt.Sprintf("%d messages", n)
}

func isASCII(b []byte) bool {
	return !bytes.ContainsFunc(b, func(r rune) bool { return r >= utf8.RuneSelf })
}
