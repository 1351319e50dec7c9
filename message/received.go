package message

import (
	"crypto/tls"
	"fmt"
	"strings"
	"time"
)

// MaxReceived is the number of Received fields past which a message is in a loop
// (RFC 5321 section 6.3 asks for at least 100 hops to be allowed in general; Gmail stops at 50).
const MaxReceived = 50

// Trace is what a Received field tells (RFC 5321 section 4.4).
type Trace struct {
	Helo, IP string // who sent it; both empty for a submitter, whose whereabouts are nobody's business
	By       string // our hostname
	Protocol string // "ESMTPS" and its kin, RFC 3848
	ID       string // the queue ID
	TLS      *tls.ConnectionState
	For      string // the recipient when there is just one
	At       time.Time
}

// Field is the whole Received field, folded, with its CRLF.
func (t Trace) Field() string {
	var b strings.Builder
	b.WriteString("Received: ")
	if t.IP != "" {
		fmt.Fprintf(&b, "from %s ([%s])\r\n\t", Token(t.Helo), ipLiteral(t.IP))
	}
	fmt.Fprintf(&b, "by %s (relayd) with %s id %s", t.By, t.Protocol, t.ID)
	if t.TLS != nil {
		fmt.Fprintf(&b, "\r\n\t(version=%s cipher=%s)",
			strings.ReplaceAll(tls.VersionName(t.TLS.Version), " ", ""), tls.CipherSuiteName(t.TLS.CipherSuite))
	}
	if t.For != "" {
		fmt.Fprintf(&b, "\r\n\tfor <%s>", t.For)
	}
	fmt.Fprintf(&b, ";\r\n\t%s\r\n", Date(t.At))
	return b.String()
}

func ipLiteral(ip string) string {
	if strings.Contains(ip, ":") {
		return "IPv6:" + ip
	}
	return ip
}

// Date formats t as RFC 5322 section 3.3 wants it.
func Date(t time.Time) string { return t.Format("Mon, 2 Jan 2006 15:04:05 -0700") }

// Token makes an untrusted word (an EHLO name) fit for a header field: at most 255 bytes, and
// everything but the bytes of host names and address literals becomes "?".
func Token(s string) string {
	if len(s) > 255 {
		s = s[:255]
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(".-_:[]", r):
			return r
		}
		return '?'
	}, s)
}
