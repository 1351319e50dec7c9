package message

import (
	"crypto/tls"
	"strings"
	"time"
)

// MaxReceived is the number of Received fields past which a message is in a loop
// (RFC 5321 section 6.3 asks for at least 100 hops to be allowed in general; Gmail stops at 50).
const MaxReceived = 50

// MaxPasses is the number of Received fields of one server past which it takes a message to be in a loop.
// It is no more than a few because a loop that forks makes twice the copies each time; a list's mail, or
// what is forwarded here again from where it was forwarded to, may well come twice or thrice.
const MaxPasses = 5

// Passes is how many Received fields name host as who received the message.
func (h Header) Passes(host string) int {
	n := 0
	for _, value := range h.Values("Received") {
		words := strings.Fields(value)
		for i := 1; i < len(words); i++ {
			if strings.EqualFold(words[i-1], "by") && strings.EqualFold(strings.TrimRight(words[i], ".;"), host) {
				n++
				break
			}
		}
	}
	return n
}

// Trace is what a Received field tells (RFC 5321 section 4.4).
type Trace struct {
	Helo, IP string // who sent it; both empty for a submitter, whose whereabouts are nobody's business
	Name     string // the domain that reverse DNS gives IP and that leads back to it; "" if there is none
	By       string // our hostname
	Protocol string // "ESMTPS" and its kin, RFC 3848
	ID       string // the queue ID
	TLS      *tls.ConnectionState
	For      string // the recipient when there is just one; left out when it is not ASCII
	At       time.Time
}

// Field is the whole Received field with its CRLF. Each clause has a line of its own, folded
// again where it would be longer than 78 octets and has a place to fold. Nothing that a client
// said can end the field or begin another clause.
func (t Trace) Field() string {
	var clauses [][]string
	if t.IP != "" {
		clauses = append(clauses, append([]string{"from", Token(t.Helo)}, t.tcpInfo()...))
	}
	clauses = append(clauses, []string{"by", t.By, "(relayd)", "with", t.Protocol, "id", t.ID})
	if t.TLS != nil {
		version := strings.ReplaceAll(tls.VersionName(t.TLS.Version), " ", "")
		clauses = append(clauses, []string{"(version=" + version, "cipher=" + tls.CipherSuiteName(t.TLS.CipherSuite) + ")"})
	}
	if t.For != "" && isASCII([]byte(t.For)) {
		// RFC 6531 section 3.7.3 has no place for other bytes where the next server lacks SMTPUTF8.
		clauses = append(clauses, []string{"for", "<" + t.For + ">"})
	}
	last := clauses[len(clauses)-1]
	last[len(last)-1] += ";"
	return folded("Received:", append(clauses, []string{Date(t.At)}))
}

// tcpInfo is what is known of the client by its address.
func (t Trace) tcpInfo() []string {
	literal := "[" + ipLiteral(t.IP) + "])"
	if t.Name == "" {
		return []string{"(" + literal}
	}
	return []string{"(" + Token(t.Name), literal}
}

// maxLine is how long a line should be at most, in octets without its CRLF (RFC 5322 section 2.1.1).
const maxLine = 78

// folded writes a field from clauses of words. A word is never broken.
func folded(name string, clauses [][]string) string {
	var b strings.Builder
	b.WriteString(name)
	column := len(name)
	for i, words := range clauses {
		for j, w := range words {
			if i > 0 && j == 0 || column+1+len(w) > maxLine {
				b.WriteString("\r\n\t" + w)
				column = 1 + len(w)
				continue
			}
			b.WriteString(" " + w)
			column += 1 + len(w)
		}
	}
	b.WriteString("\r\n")
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
// everything but the bytes of host names and address literals becomes "?", as does no word at all.
func Token(s string) string {
	if s == "" {
		return "?"
	}
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
