package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"relayd/address"
)

// Values of Smarthost.Scheme.
const (
	SchemeSMTP        = "smtp"        // port 25, TLS where it is offered, no AUTH
	SchemeSubmission  = "submission"  // port 587, STARTTLS
	SchemeSubmissions = "submissions" // port 465, implicit TLS (RFC 8314)
)

// A Smarthost is a server that takes all outgoing mail. The zero Smarthost means that there is
// none and mail goes to the MX hosts of its recipients.
type Smarthost struct {
	Scheme   string // SchemeSMTP, SchemeSubmission or SchemeSubmissions
	Host     string // a domain name, or an IP address without brackets
	Port     int
	User     string // "": no AUTH; never set with SchemeSMTP
	Password string `json:"-"` // from the password file, by Load
}

// IsZero reports whether there is no smarthost.
func (s Smarthost) IsZero() bool { return s.Host == "" }

// Addr is what to dial: "host:port", with brackets around an IPv6 address.
func (s Smarthost) Addr() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// String is the URL that s was read from, in normal form. It never has the password, nor has
// anything else that fmt prints of a Smarthost.
func (s Smarthost) String() string {
	if s.IsZero() {
		return ""
	}
	user := ""
	if s.User != "" {
		user = strings.ReplaceAll(url.QueryEscape(s.User), "+", "%20") + "@"
	}
	return s.Scheme + "://" + user + s.Addr()
}

// GoString keeps the password out of what %#v prints.
func (s Smarthost) GoString() string { return fmt.Sprintf("config.Smarthost(%q)", s.String()) }

// UnmarshalText reads "submission://user@host:587", "submissions://user@host:465" or
// "smtp://host:25". The port can be left out. The user may be percent-encoded, and since mail
// users are mostly addresses, an "@" in it is also taken as it is: the last one ends the user.
// Empty text is the zero Smarthost. Errors do not quote text, which could have a password in it.
func (s *Smarthost) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*s = Smarthost{}
		return nil
	}
	scheme, rest, ok := strings.Cut(string(text), "://")
	scheme = strings.ToLower(scheme)
	port, known := map[string]int{SchemeSMTP: 25, SchemeSubmission: 587, SchemeSubmissions: 465}[scheme]
	if !ok || !known {
		return errors.New("must begin with submission://, submissions:// or smtp://")
	}
	user, hostPort := "", rest
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		var err error
		if user, err = smarthostUser(scheme, rest[:at]); err != nil {
			return err
		}
		hostPort = rest[at+1:]
	}
	host, port, err := smarthostAddress(strings.TrimSuffix(hostPort, "/"), port)
	if err != nil {
		return err
	}
	*s = Smarthost{Scheme: scheme, Host: host, Port: port, User: user}
	return nil
}

func smarthostUser(scheme, s string) (string, error) {
	if strings.Contains(s, ":") {
		return "", errors.New("has a password in it: write that into a file and name the file in password_file")
	}
	if scheme == SchemeSMTP {
		return "", errors.New("has a user, but smtp:// does not insist on TLS, which a password needs: use submission://")
	}
	user, err := url.PathUnescape(s)
	switch {
	case err != nil:
		return "", errors.New("has a % in the user that is not an escape like %40: write the % as %25")
	case user == "":
		return "", errors.New("has an @ but no user before it")
	case strings.ContainsFunc(user, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", errors.New("has a control character in the user")
	}
	return user, nil
}

func smarthostAddress(s string, port int) (string, int, error) {
	host, digits, hasPort := s, "", false
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		host, digits, hasPort = s[:i], s[i+1:], true
	}
	if hasPort {
		var err error
		if port, err = portNumber(digits, 1); err != nil {
			return "", 0, errors.New("the port after the host must be a number from 1 to 65535")
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		ip, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !ip.Is6() || !strings.HasSuffix(inner, "]") {
			return "", 0, errors.New("only an IPv6 address stands in brackets, like [2001:db8::1]")
		}
		return ip.String(), port, nil
	}
	if strings.Contains(host, ":") {
		return "", 0, errors.New("an IPv6 address must stand in brackets, like [2001:db8::1]")
	}
	host, err := address.Domain(host)
	if err != nil {
		return "", 0, errors.New("the host is not a domain name or an IP address")
	}
	return host, port, nil
}

// portNumber reads a decimal TCP port that is least or more.
func portNumber(s string, least int) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || int(n) < least {
		return 0, fmt.Errorf("port %q is not a number from %d to 65535", s, least)
	}
	return int(n), nil
}
