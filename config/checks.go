package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"relayd/address"
)

// A check closes over the field that it judges. Where values have a normal form it stores that.

func between[T cmp.Ordered](p *T, least, most T) func(complaints) {
	return func(bad complaints) {
		if *p < least || *p > most {
			bad.add("must be between %v and %v, not %v", least, most, *p)
		}
	}
}

func oneOf(p *string, values ...string) func(complaints) {
	return func(bad complaints) {
		for _, v := range values {
			if *p == v {
				return
			}
		}
		last := len(values) - 1
		bad.add(`must be "%s" or %q, not %q%s`, strings.Join(values[:last], `", "`), values[last], *p, likeOne(*p, values))
	}
}

// likeOne asks for the value that a wrong one is most like; it says nothing where there is none.
func likeOne(wrong string, values []string) string {
	words := make([]place, len(values))
	for i, v := range values {
		words[i].name = v
	}
	if p, ok := nearest(wrong, words); ok {
		return fmt.Sprintf(": did you mean %q?", p.name)
	}
	return ""
}

// normal stores what parse makes of the text, or complains.
func normal(p *string, parse func(string) (string, error)) func(complaints) {
	return func(bad complaints) {
		v, err := parse(*p)
		if err != nil {
			bad.add("%v", err)
			return
		}
		*p = v
	}
}

// optional lets an empty text pass.
func optional(p *string, parse func(string) (string, error)) func(complaints) {
	return normal(p, func(s string) (string, error) {
		if s == "" {
			return "", nil
		}
		return parse(s)
	})
}

func optionalAddress(p *string) func(complaints) {
	return optional(p, func(s string) (string, error) {
		a, err := address.Parse(s)
		return a.String(), err
	})
}

func optionalDomain(p *string) func(complaints) { return optional(p, qualified) }

func hostname(p *string) func(complaints) {
	return normal(p, func(s string) (string, error) {
		if s == "" {
			return "", errors.New(`is empty: write the full name of this server, like "mx.example.com"`)
		}
		name, err := qualified(s)
		if err == nil && strings.Contains(name, "_") {
			// DNS knows such names, but many servers refuse them in EHLO.
			return "", fmt.Errorf("%q is not a host name: letters, digits, hyphens and dots are allowed", s)
		}
		return name, err
	})
}

// qualified checks a domain name of at least two labels.
func qualified(s string) (string, error) {
	name, err := address.Domain(s)
	if err != nil {
		return "", err
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	switch {
	case strings.HasPrefix(name, "[") || strings.Trim(last, "0123456789") == "":
		return "", fmt.Errorf("%q is an IP address or a number: write a domain name", s)
	case last == name:
		return "", fmt.Errorf(`%q is not a full domain name: write one like "mx.example.com"`, s)
	}
	return name, nil
}

// maxSocketPath is the longest path of a unix socket on Linux, in bytes (unix(7)).
const maxSocketPath = 107

func stateDir(p *string) func(complaints) {
	return normal(p, func(s string) (string, error) {
		if !filepath.IsAbs(s) || strings.Contains(s, "\x00") {
			return "", fmt.Errorf("%q is not an absolute path: it must begin with /", s)
		}
		dir := filepath.Clean(s)
		socket := (&Config{StateDir: dir}).ControlSocket()
		if over := len(socket) - maxSocketPath; over > 0 {
			return "", fmt.Errorf("the path is %d bytes too long for the socket %q in it", over, filepath.Base(socket))
		}
		return dir, nil
	})
}

func httpsURL(p *string) func(complaints) {
	return func(bad complaints) {
		if u, err := url.Parse(*p); err != nil || u.Scheme != "https" || u.Host == "" {
			bad.add(`%q is not a URL that begins with "https://"`, *p)
		}
	}
}

// sourceAddress lets the zero address pass.
func sourceAddress(p *netip.Addr, family string) func(complaints) {
	return func(bad complaints) {
		name := map[string]string{IPv4: "IPv4", IPv6: "IPv6"}[family]
		switch ip := *p; {
		case !ip.IsValid():
		case ip.Is4() != (family == IPv4) || ip.Is4In6():
			bad.add("%s is not an %s address", ip, name)
		case ip.Zone() != "" || ip.IsLinkLocalUnicast():
			bad.add("%s is of one network link only: write an address that reaches further", ip)
		case ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			bad.add(`%s is no address that a connection can come from: write one of this machine, or "" for the system's choice`, ip)
		}
	}
}

func listenAddresses(p *[]string) func(complaints) {
	return func(bad complaints) {
		for _, s := range *p {
			if _, err := listenSocket(s); err != nil {
				bad.add("%q: %v", s, err)
			}
		}
	}
}

// listenSocket checks one address to listen on. It returns what is the same for two addresses
// that cannot both be listened on, "" for one that never conflicts.
func listenSocket(s string) (string, error) {
	if name, ok := strings.CutPrefix(s, "systemd:"); ok {
		return s, socketName(name)
	}
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 {
		return "", errors.New(`write an address and a port like "192.0.2.1:25", ":25" for every address, or "systemd:NAME"`)
	}
	host := s[:colon]
	port, err := portNumber(s[colon+1:], 0)
	if err != nil {
		return "", err
	}
	host, err = listenHost(host)
	if err != nil || port == 0 {
		return "", err
	}
	return host + ":" + strconv.Itoa(port), nil
}

// listenHost returns a host in normal form, "" for every address of this machine.
func listenHost(host string) (string, error) {
	inner, bracketed := strings.CutPrefix(host, "[")
	if ip, err := netip.ParseAddr(strings.TrimSuffix(inner, "]")); err == nil {
		switch {
		case ip.Is6() && (!bracketed || !strings.HasSuffix(inner, "]")):
			return "", errors.New(`an IPv6 address must stand in brackets, like "[2001:db8::1]:25"`)
		case ip.Is4() && inner != host:
			return "", errors.New("only an IPv6 address stands in brackets")
		case ip.IsUnspecified():
			return "", nil // Go listens on both families for either
		}
		return ip.Unmap().String(), nil
	}
	if host == "" {
		return "", nil
	}
	if strings.ContainsAny(host, "[]:") {
		return "", errors.New("that is not an IP address")
	}
	return address.Domain(host)
}

// socketName checks a name as systemd.socket(5) allows it in FileDescriptorName.
func socketName(name string) error {
	if name == "" || len(name) > 255 {
		return errors.New(`after "systemd:" stands the FileDescriptorName of a socket unit`)
	}
	for i := range len(name) {
		if c := name[i]; c < ' ' || c > '~' || c == ':' {
			return fmt.Errorf("the name of a socket unit cannot have %q in it", c)
		}
	}
	return nil
}

// networks stores each in normal form; one address is a network of its own.
func networks(p *[]string) func(complaints) {
	return func(bad complaints) {
		for i, s := range *p {
			n, err := netip.ParsePrefix(s)
			if ip, failed := netip.ParseAddr(s); failed == nil {
				n, err = netip.PrefixFrom(ip, ip.BitLen()), nil
			}
			switch {
			case err != nil || n.Addr().Zone() != "" || n.Addr().Is4In6():
				bad.add(`%q is not a network: write one like "10.0.0.0/8" or "2001:db8::/32", or an IP address`, s)
			case n.Bits() == 0:
				bad.add("%q is the whole world: anybody could then pass for anybody else", s)
			case n.Masked() != n:
				bad.add("%q has bits behind its length: did you mean %q?", s, n.Masked())
			}
			(*p)[i] = n.String()
		}
	}
}

func dnsServers(p *[]string) func(complaints) {
	return func(bad complaints) {
		for i, s := range *p {
			server, err := dnsServer(s)
			if err != nil {
				bad.add("%v", err)
				continue
			}
			(*p)[i] = server.String()
		}
	}
}

func dnsServer(s string) (netip.AddrPort, error) {
	bare := s
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
		bare = strings.TrimSuffix(inner, "]")
	}
	if ip, err := netip.ParseAddr(bare); err == nil && (bare == s || ip.Is6()) {
		return netip.AddrPortFrom(ip, 53), nil
	}
	server, err := netip.ParseAddrPort(s)
	if err != nil || server.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf(`%q is not a DNS server: write an IP address, like "192.0.2.53" or "[2001:db8::53]:53"`, s)
	}
	return server, nil
}

// localUsers brings the addresses that local users may send as into normal form.
func localUsers(p *map[string][]string) func(complaints) {
	return func(bad complaints) {
		for name, list := range *p {
			for i, s := range list {
				switch domain, all := strings.CutPrefix(s, "*@"); {
				case s == "*":
				case all:
					normalized, err := qualified(domain)
					if err != nil {
						bad.under(name).add("%v", err)
					}
					list[i] = "*@" + normalized
				default:
					a, err := address.Parse(s)
					if err != nil {
						bad.under(name).add("%v", err)
					}
					list[i] = a.Key()
				}
			}
		}
	}
}
