package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
)

func findPostfix(*world) (string, error) {
	if err := need("postfix", "dovecot", "opendkim", "postconf"); err != nil {
		return "", fmt.Errorf("%w: apt-get install postfix dovecot-core opendkim", err)
	}
	return fmt.Sprintf("Postfix %s, Dovecot %s for passwords, OpenDKIM %s", version("postconf", "mail_version"), version("dovecot", "--version"),
		version("opendkim", "-V")), nil
}

// postfixMain is main.cf with Debian's settings where they differ from Postfix's.
const postfixMain = `compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
maillog_file = DIR/log
maillog_file_prefixes = DIR
myhostname = mx.example.test
mydestination =
mynetworks = 192.0.2.1
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
biff = no
append_dot_mydomain = no
smtp_host_lookup = dns
smtp_tls_security_level = may
smtpd_tls_security_level = may
smtpd_tls_cert_file = DIR/fullchain.pem
smtpd_tls_key_file = DIR/privkey.pem
smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
message_size_limit = 52428800
virtual_alias_domains = example.test
virtual_alias_maps = hash:DIR/virtual
`

// postfixMaster is master.cf: Debian's, without chroot, which needs a folder made for it, and without what is not used.
const postfixMaster = `smtp inet n - n - - smtpd
submission inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt SUBMISSION
smtps inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes SUBMISSION
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

const postfixSubmission = `-o smtpd_sasl_auth_enable=yes -o smtpd_relay_restrictions=permit_sasl_authenticated,reject -o smtpd_milters=unix:DIR/opendkim.sock`

// dovecotConf is a Dovecot that does nothing but check passwords.
const dovecotConf = `base_dir = DIR/dovecot
state_dir = DIR/dovecot
log_path = DIR/dovecot.log
protocols =
ssl = no
passdb {
  driver = passwd-file
  args = scheme=BLF-CRYPT username_format=%n DIR/users
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}
service auth {
  user = root
  unix_listener DIR/queue/private/auth {
    mode = 0666
  }
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
`

const opendkimConf = `Syslog no
Mode s
Domain example.test
Selector s1
KeyFile DIR/dkim.pem
Socket local:DIR/opendkim.sock
UMask 000
Canonicalization relaxed/simple
OversignHeaders From
RequireSafeKeys no
InternalHosts 127.0.0.1
UserID root
`

// startPostfix starts Postfix with Dovecot and OpenDKIM behind submission. It is always durable.
func startPostfix(w *world, c *cage, dir, _ string) error {
	fill := func(text string) string {
		return strings.ReplaceAll(strings.ReplaceAll(text, "SUBMISSION", postfixSubmission), "DIR", dir)
	}
	owner, err := osuser.Lookup("postfix")
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(owner.Uid)
	err = errors.Join(
		write(filepath.Join(dir, "etc/main.cf"), fill(postfixMain), 0o644),
		write(filepath.Join(dir, "etc/master.cf"), fill(postfixMaster), 0o644),
		write(filepath.Join(dir, "virtual"), eachAlias("%s@example.test %s\n"), 0o644),
		write(filepath.Join(dir, "users"), "app:"+w.bcrypt+"\n", 0o600),
		write(filepath.Join(dir, "fullchain.pem"), string(w.chain), 0o644),
		write(filepath.Join(dir, "privkey.pem"), string(w.key), 0o600),
		write(filepath.Join(dir, "dovecot.conf"), fill(dovecotConf), 0o644),
		write(filepath.Join(dir, "opendkim.conf"), fill(opendkimConf), 0o644),
		write(filepath.Join(dir, "dkim.pem"), string(w.dkimPEM), 0o600),
		os.Mkdir(filepath.Join(dir, "queue"), 0o755), os.Mkdir(filepath.Join(dir, "queue/private"), 0o700), os.Chown(filepath.Join(dir, "queue/private"), uid, -1),
		os.MkdirAll(filepath.Join(dir, "data"), 0o700), os.Chown(filepath.Join(dir, "data"), uid, -1),
	)
	if err != nil {
		return err
	}
	if out, err := exec.Command("postmap", "-c", filepath.Join(dir, "etc"), "hash:"+filepath.Join(dir, "virtual")).CombinedOutput(); err != nil {
		return fmt.Errorf("postmap: %w: %s", err, out)
	}
	said := filepath.Join(dir, "said")
	return errors.Join(
		c.start(said, "opendkim", "-f", "-x", filepath.Join(dir, "opendkim.conf")),
		c.start(said, "dovecot", "-F", "-c", filepath.Join(dir, "dovecot.conf")),
		c.start(said, "postfix", "-c", filepath.Join(dir, "etc"), "start-fg"),
	)
}
