//go:build interop

package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSmarthostPostfix: a Postfix that takes mail from its users only, by one mechanism or the other,
// with Dovecot to ask for passwords. A wrong one loses nothing, and the admin hears of it.
func TestSmarthostPostfix(t *testing.T) {
	for _, mechanism := range []string{"plain", "login"} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			const secret = "battery-staple"
			p := newPair(t, "smart-"+mechanism, "[outbound]\nsmarthost = \"submission://out@mx.dest.test:587\"\npassword_file = \"secret\"\n")
			dir := startDovecot(p.dest, fmt.Sprintf(`protocols =
auth_mechanisms = %s
passdb {
  driver = static
  args = user=out password=%s
}
service auth {
  unix_listener DIR/auth {
    mode = 0666
  }
}
`, mechanism, secret))
			p.write("mx.pem", string(p.cert.Key)+string(p.cert.Chain))
			post, log := startPostfix(p.dest, "ipv4", fmt.Sprintf("smtpd_tls_security_level = may\nsmtpd_tls_auth_only = yes\nsmtpd_tls_chain_files = %s\n"+
				"smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = %s\nsmtpd_relay_restrictions = permit_sasl_authenticated, reject\n",
				p.path("mx.pem"), filepath.Join(dir, "auth")))
			p.write("authority.pem", string(lastBlock(p.cert.Chain)))

			p.write("secret", "wrong horse\n")
			d := p.startTrusting("authority.pem")
			ids := p.submitMany(8)
			waitFor(t, "one is held and the others wait for the login", patience, func() bool {
				return strings.Count(p.mustUtil("queue-list", "--state", "held", "--json"), `"sender"`) == 1 &&
					strings.Count(p.mustUtil("queue-list", "--state", "waiting", "--json"), `"attempts":0`) == len(ids)-1
			})
			if out := p.mustUtil("status"); !strings.Contains(out, "does not accept our login: check user and password of the smarthost") {
				t.Errorf("status says nothing of the password:\n%s", out)
			}
			if n := len(readMaildir(post.path("mail/box"))); n > 0 {
				t.Errorf("%d messages arrived without a login", n)
			}

			d.stop() // settings are read at the start
			p.write("secret", secret+"\n")
			p.startTrusting("authority.pem")
			p.mustUtil("queue-retry", "--all")
			copies := map[string]int{}
			for _, text := range post.await("box", len(ids)) {
				copies[loadID.FindString(string(text))]++
			}
			for id := range ids {
				if copies[id] != 1 {
					t.Errorf("%s arrived %d times", id, copies[id])
				}
			}
			if want := "sasl_method=" + strings.ToUpper(mechanism) + ", sasl_username=out"; !log.has(want) {
				t.Errorf("Postfix does not say %s", want)
			}
			if out := p.mustUtil("status"); strings.Contains(out, "login") {
				t.Errorf("status goes on about what is mended:\n%s", out)
			}
		})
	}
}

// startTrusting is start with an authority besides whom relayd trusts nobody.
func (s *site) startTrusting(authority string) *daemon {
	s.t.Helper()
	cmd := s.command(program(s.t, "relayd"), "-c", s.config())
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+s.path(authority), "SSL_CERT_DIR=/nonexistent")
	d := s.launch(cmd)
	d.awaitUp()
	return d
}
