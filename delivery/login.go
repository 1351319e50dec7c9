package delivery

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"relayd/reply"
)

// login does AUTH (RFC 4954) with PLAIN or LOGIN, whose password TLS has to protect. A server
// that does not want it is not the message's fault: the mail waits until the login is mended.
func (s *session) login(route Route) error {
	mechanisms := strings.Fields(strings.ToUpper(s.ext["AUTH"]))
	var r *reply.Reply
	var err error
	switch {
	case slices.Contains(mechanisms, "PLAIN"):
		r, err = s.command(s.times.Command, "AUTH PLAIN "+b64("\x00"+route.User+"\x00"+route.Password))
	case slices.Contains(mechanisms, "LOGIN"):
		r, err = s.command(s.times.Command, "AUTH LOGIN")
		for _, answer := range []string{route.User, route.Password} {
			if err == nil && r.Code == 334 {
				r, err = s.command(s.times.Command, b64(answer))
			}
		}
	default:
		return reply.New(451, "4.7.4", "%s offers no login by PLAIN or LOGIN, and the smarthost's password is for one", s.peer)
	}
	if errors.Is(err, errBadReply) {
		return s.lost(errBadReply) // without what stood in it: it might be our own words
	}
	if err != nil {
		return err
	}
	switch r = withoutSecrets(r, route); {
	case r.Code == 235:
		return nil
	case r.Temporary():
		return s.refused(r, AtAuth, "AUTH")
	}
	return reply.New(451, "4.7.8", "%s does not accept our login: check user and password of the smarthost", s.peer).Because(&refusal{r, AtAuth})
}

// withoutSecrets is r for the log: some servers repeat what they could not read.
func withoutSecrets(r *reply.Reply, route Route) *reply.Reply {
	clean := *r
	for _, secret := range []string{b64("\x00" + route.User + "\x00" + route.Password), b64(route.Password), route.Password} {
		clean.Text = strings.ReplaceAll(clean.Text, secret, "***")
	}
	return &clean
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
