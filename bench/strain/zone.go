package main

import (
	"fmt"
	"net"
	"strings"

	"github.com/miekg/dns"

	"relayd/dkim"
)

// A zone is a DNS server that knows the DKIM keys of elsewhere.test, and that nothing else exists.
type zone struct {
	addr    string
	server  *dns.Server
	records map[string]string
	keys    map[string]*dkim.Key
}

func newZone() (*zone, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	z := &zone{addr: conn.LocalAddr().String(), records: map[string]string{}, keys: map[string]*dkim.Key{}}
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

// key is that of a selector from s0 to s9.
func (z *zone) key(selector string) (*dkim.Key, error) {
	if k := z.keys[selector]; k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("there is no key %s", selector)
}

func (z *zone) make(selector string) error {
	pem, err := dkim.Generate("rsa2048")
	if err != nil {
		return err
	}
	k, err := dkim.ParseKey("elsewhere.test", selector, pem)
	if err != nil {
		return err
	}
	r := k.Record()
	z.keys[selector], z.records[strings.TrimSuffix(r.Name, ".")] = k, r.Value
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
