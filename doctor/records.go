package doctor

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"relayd/dkim"
	"relayd/mtasts"
)

// A Site is what the records of one hosted domain follow from. Names are in A-labels and lower case,
// without a dot at the end.
type Site struct {
	Hostname  string
	Domain    string
	SRSDomain string       // in whose name forwarded mail leaves; "" for the domain itself
	Keys      []*dkim.Key  // that sign
	Addresses []netip.Addr // of the server as the world sees it; none if they are not known

	// The rest is for Further alone.
	Issuer string              // of certificates, as CAA names it; "" if it is not known
	Certs  []*x509.Certificate // in force for the hostname, proven by more than themselves
	TLSRPT string              // address for reports on TLS; "": postmaster of the domain
}

// A Record is a DNS record that is to be published.
type Record struct {
	Name  string `json:"name"` // without a dot at the end
	Type  string `json:"type"`
	Value string `json:"value"` // as in a zone file, but TXT whole and without quotes; "" if nobody knows
	// Where is where it is published if that is not the zone of the domain: "" or a sentence.
	Where string `json:"where,omitempty"`
	Why   string `json:"why"`
	Kind  string `json:"kind"` // one of the Kinds
}

// The Kinds of records, by what they are for.
const (
	KindHost    = "host"     // address of the server
	KindMX      = "mx"       // way of mail to the server
	KindSPF     = "spf"      // of a domain in whose name mail leaves
	KindHelo    = "helo-spf" // of the name that the server says in EHLO
	KindDKIM    = "dkim"
	KindDMARC   = "dmarc"
	KindPTR     = "ptr"
	KindFurther = "further" // good to have
)

// Needed returns the records without which forwarded mail does not arrive, in the order in which
// they are best published.
func Needed(s Site) []Record {
	var list []Record
	add := func(kind, name, typ, value, why string) {
		list = append(list, Record{Name: name, Type: typ, Value: value, Where: s.where(kind, name), Why: why, Kind: kind})
	}
	if len(s.Addresses) == 0 {
		add(KindHost, s.Hostname, "A", "", "the public address of the server")
	}
	for _, ip := range s.Addresses {
		add(KindHost, s.Hostname, addressType(ip), ip.String(), "the public address of the server")
	}
	add(KindMX, s.Domain, "MX", "10 "+s.Hostname+".", "where mail for the domain goes: to this server, and to no other")
	add(KindSPF, s.Domain, "TXT", "v=spf1 mx ~all",
		"SPF, who may send for the domain: the servers of its MX. If there is an SPF record already, add mx to that one")
	if s.SRSDomain != "" && s.SRSDomain != s.Domain {
		add(KindMX, s.SRSDomain, "MX", "10 "+s.Hostname+".", "where bounces of forwarded mail go")
		add(KindSPF, s.SRSDomain, "TXT", "v=spf1 mx ~all", "SPF of the domain in whose name forwarded mail leaves")
	}
	if s.Hostname != s.Domain && s.Hostname != s.SRSDomain {
		add(KindHelo, s.Hostname, "TXT", "v=spf1 a -all", "SPF of the name that the server gives itself, which bounces are judged by")
	}
	for _, k := range s.Keys {
		r := k.Record()
		add(KindDKIM, r.Name, r.Type, r.Value, "DKIM, the key by which others check our signatures")
	}
	add(KindDMARC, "_dmarc."+s.Domain, "TXT", "v=DMARC1; p=none",
		"DMARC, what others are to do with forgeries: nothing for now. Write p=reject once your own mail arrives")
	for _, ip := range s.Addresses {
		add(KindPTR, reverseName(ip), "PTR", s.Hostname+".", "reverse DNS: Gmail takes no mail from an address without")
	}
	return list
}

// where says where a record is published that does not belong into the zone of the domain.
func (s Site) where(kind, name string) string {
	switch {
	case kind == KindPTR:
		return "set it where the server is hosted, as reverse DNS of the address"
	case name != s.Domain && !strings.HasSuffix(name, "."+s.Domain):
		return "it belongs into the zone of " + name
	}
	return ""
}

func addressType(ip netip.Addr) string {
	if ip.Is4() {
		return "A"
	}
	return "AAAA"
}

// reverseName is the name of an address's PTR record, without the dot at the end.
func reverseName(ip netip.Addr) string { return reversed(ip, "in-addr.arpa", "ip6.arpa") }

// reversed writes an address as labels in reverse order in front of a suffix for its family.
func reversed(ip netip.Addr, suffix4, suffix6 string) string {
	ip = ip.Unmap()
	if ip.Is4() {
		b := ip.As4()
		return fmt.Sprintf("%d.%d.%d.%d.%s", b[3], b[2], b[1], b[0], suffix4)
	}
	var name strings.Builder
	digits := hex.EncodeToString(ip.AsSlice())
	for i := len(digits) - 1; i >= 0; i-- {
		name.WriteByte(digits[i])
		name.WriteByte('.')
	}
	return name.String() + suffix6
}

// stsAge is how long senders keep the policy: short, so that a mistake is forgotten soon.
const stsAge = 7 * 24 * time.Hour

// STSPolicy is the MTA-STS policy to begin with, to be served as
// https://mta-sts.DOMAIN/.well-known/mta-sts.txt with line ends of CRLF or LF.
func STSPolicy(s Site) mtasts.Policy {
	return mtasts.Policy{Mode: mtasts.Testing, MX: []string{s.Hostname}, MaxAge: stsAge}
}

// Further returns records that are good to have: for TLS that cannot be stripped, for mail programs
// that find their settings alone.
func Further(s Site) []Record {
	var list []Record
	add := func(name, typ, value, why string) {
		list = append(list, Record{Name: name, Type: typ, Value: value, Where: s.where(KindFurther, name), Why: why, Kind: KindFurther})
	}
	// The id changes with the policy, which is all that it is for (RFC 8461 section 3.1).
	id := sha256.Sum256([]byte(STSPolicy(s).String()))
	add("_mta-sts."+s.Domain, "TXT", "v=STSv1; id="+hex.EncodeToString(id[:8]),
		"MTA-STS, to senders: there is a policy. Publish it only when https://mta-sts."+s.Domain+"/.well-known/mta-sts.txt answers")
	reports := s.TLSRPT
	if reports == "" {
		reports = "postmaster@" + s.Domain
	}
	add("_smtp._tls."+s.Domain, "TXT", "v=TLSRPTv1; rua=mailto:"+reports, "where senders report on TLS that failed")
	add("_submissions._tcp."+s.Domain, "SRV", "0 1 465 "+s.Hostname+".", "where mail programs submit mail, with TLS from the start")
	add("_submission._tcp."+s.Domain, "SRV", "10 1 587 "+s.Hostname+".", "where mail programs submit mail, with STARTTLS")
	if s.Issuer != "" {
		add(s.Hostname, "CAA", `0 issue "`+s.Issuer+`"`, "who may issue certificates for the server: the one who does now, and nobody else")
	}
	for _, cert := range s.Certs {
		sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
		add("_25._tcp."+s.Hostname, "TLSA", "3 1 1 "+hex.EncodeToString(sum[:]),
			"DANE, the key of the certificate in force: only in a zone with DNSSEC, and only if renewals keep the key")
	}
	return list
}
