package aliases

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"relayd/address"
)

// parseTarget reads one target, without the blanks around it.
func parseTarget(s string, opt Options) (Target, error) {
	if s == "" {
		return Target{}, errors.New("an empty target: a comma too many")
	}
	if s[0] == '|' {
		return parsePipe(s[1:], opt)
	}
	words := fields(s)
	isVia := len(words) > 1 && strings.EqualFold(words[1], "via")
	switch {
	case isVia && len(words) != 3:
		return Target{}, fmt.Errorf("%s: after via stands one host or host/host2", s)
	case !isVia && len(words) > 1:
		return Target{}, fmt.Errorf("%s: targets are separated by commas", s)
	}
	t, err := parseRecipient(words[0], opt.Domain)
	if err != nil || !isVia {
		return t, err
	}
	for host := range strings.SplitSeq(words[2], "/") {
		h, err := viaHost(host)
		if err != nil {
			return Target{}, fmt.Errorf("%s: %w", s, err)
		}
		t.Via = append(t.Via, h)
	}
	return t, nil
}

// parseRecipient reads the address of a target; one without @ is in domain.
func parseRecipient(s, domain string) (Target, error) {
	at, _ := indexUnquoted(s, func(i int) bool { return s[i] == '@' })
	if at < 0 {
		at = len(s)
		s += "@" + domain
	}
	a, err := parseAddress(s)
	if err != nil {
		return Target{}, err
	}
	if a.Local == catchAllName && s[:at] != catchAllName {
		return Target{}, fmt.Errorf("%s: no mailbox can be named *; *@domain, without quotes, keeps the name", s)
	}
	return Target{Address: a, KeepLocal: s[:at] == catchAllName}, nil
}

// viaHost checks a host with an optional port and brings it into one form. An IP address ends
// up in brackets without the "IPv6:" of SMTP, so that net.SplitHostPort and net.Dial take it.
func viaHost(s string) (string, error) {
	host, port, hasPort := s, "", false
	if end := strings.IndexByte(s, ']'); end >= 0 {
		host, port = s[:end+1], s[end+1:]
		if port, hasPort = strings.CutPrefix(port, ":"); !hasPort && port != "" {
			return "", fmt.Errorf("host %q: only :port may follow the bracket", s)
		}
	} else if strings.Count(s, ":") == 1 {
		host, port, hasPort = strings.Cut(s, ":")
	}
	host, err := hostName(host)
	if err != nil || !hasPort {
		return host, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", fmt.Errorf("host %q: the port is not a number from 1 to 65535", s)
	}
	return host + ":" + strconv.FormatUint(n, 10), nil
}

func hostName(s string) (string, error) {
	inner, bracketed := strings.CutPrefix(s, "[")
	if bracketed {
		inner = strings.TrimSuffix(inner, "]")
		if len(inner) > 5 && strings.EqualFold(inner[:5], "ipv6:") {
			inner = inner[5:]
		}
	}
	ip, err := netip.ParseAddr(inner)
	switch {
	case err == nil && ip.Zone() != "":
		return "", fmt.Errorf("host %q: an address with a zone", s)
	case err == nil && (bracketed || ip.Is4()):
		return "[" + ip.String() + "]", nil
	case err == nil || strings.Contains(s, ":"):
		return "", fmt.Errorf("host %q: write an IPv6 address in brackets", s)
	case bracketed:
		return "", fmt.Errorf("host %q: no IP address in the brackets", s)
	case s == "":
		return "", errors.New("an empty host after via")
	}
	return address.Domain(s)
}

// parsePipe reads a command. The setting is off by default because whoever may edit the file
// could otherwise run programs as the mail server.
func parsePipe(s string, opt Options) (Target, error) {
	if !opt.AllowPipe {
		return Target{}, fmt.Errorf("|%s: commands are off; [aliases] allow_pipe = true in relayd.toml turns them on", s)
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return Target{}, fmt.Errorf("|%s: byte %q in a command", s, c)
		}
	}
	words := fields(s)
	for i := range words {
		words[i] = unquoteField(words[i])
	}
	if len(words) == 0 || words[0] == "" {
		return Target{}, errors.New("no command after the |")
	}
	return Target{Pipe: words}, nil
}
