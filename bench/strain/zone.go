package main

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"strings"

	msgauth "github.com/emersion/go-msgauth/dkim"
	"github.com/miekg/dns"

	"relayd/dkim"
)

// A zone is a DNS server that knows the DKIM keys of elsewhere.test, and that nothing else exists.
type zone struct {
	addr    string
	server  *dns.Server
	records map[string]string
	keys    map[string]crypto.Signer
}

func newZone() (*zone, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	z := &zone{addr: conn.LocalAddr().String(), records: map[string]string{}, keys: map[string]crypto.Signer{}}
	for n := range 10 { // before it is asked
		if err := z.make(fmt.Sprintf("s%d", n)); err != nil {
			return nil, err
		}
	}
	z.server = &dns.Server{PacketConn: conn, Handler: z}
	go z.server.ActivateAndServe() // until close
	return z, nil
}

func (z *zone) close() { z.server.Shutdown() }

// sign puts a signature in front of a message with each of n keys, of the fields that are named.
func (z *zone) sign(message string, n int, fields []string) (string, error) {
	signed := message
	for i := range n {
		selector := fmt.Sprintf("s%d", i)
		s, err := msgauth.NewSigner(&msgauth.SignOptions{
			Domain: "elsewhere.test", Selector: selector, Signer: z.keys[selector], HeaderKeys: fields,
			HeaderCanonicalization: msgauth.CanonicalizationRelaxed, BodyCanonicalization: msgauth.CanonicalizationRelaxed,
		})
		if err != nil {
			return "", err
		}
		if _, err := io.WriteString(s, message); err != nil {
			return "", err
		}
		if err := s.Close(); err != nil {
			return "", err
		}
		signed = s.Signature() + signed
	}
	return signed, nil
}

func (z *zone) make(selector string) error {
	text, err := dkim.Generate("rsa2048")
	if err != nil {
		return err
	}
	k, err := dkim.ParseKey("elsewhere.test", selector, text)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return err
	}
	r := k.Record()
	z.keys[selector], z.records[r.Name] = private.(crypto.Signer), r.Value
	return nil
}

// ServeDNS implements dns.Handler.
func (z *zone) ServeDNS(w dns.ResponseWriter, asked *dns.Msg) {
	answer := new(dns.Msg).SetReply(asked)
	name := asked.Question[0].Name
	switch value := z.records[strings.ToLower(strings.TrimSuffix(name, "."))]; {
	case value == "":
		answer.Rcode = dns.RcodeNameError
	case asked.Question[0].Qtype == dns.TypeTXT:
		var pieces []string
		for ; len(value) > 250; value = value[250:] {
			pieces = append(pieces, value[:250])
		}
		answer.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 3600}, Txt: append(pieces, value)}}
	}
	w.WriteMsg(answer) // who gets none asks again
}
