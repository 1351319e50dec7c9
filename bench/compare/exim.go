package main

import (
	"errors"
	"fmt"
	"os"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// eximUser is the user that Debian's Exim is built for.
const eximUser = "Debian-exim"

func findExim(*world) (string, error) {
	path, err := unpacked("exim4-daemon-light", "exim4")
	if err != nil {
		return "", err
	}
	if err := eximAccount(); err != nil {
		return "", err
	}
	return "Exim " + version(path, "-C", "/dev/null", "-bV"), nil
}

// eximAccount adds the user to our copy of /etc where the package is not installed.
func eximAccount() error {
	if _, err := osuser.Lookup(eximUser); err == nil {
		return nil
	}
	return errors.Join(addLine("/etc/passwd", eximUser+":x:61998:61998::/nonexistent:/usr/sbin/nologin\n"), addLine("/etc/group", eximUser+":x:61998:\n"))
}

func addLine(file, line string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

// eximConf is Exim with Debian's settings as far as they matter here. The limits on sessions are
// raised, for Debian's 20 at once, and 10 messages a session before the rest waits for half an hour,
// would leave nothing to measure. Deliveries run without root, for the program is not setuid.
const eximConf = `primary_hostname = mx.example.test
exim_path = PROGRAM
spool_directory = DIR/spool
log_file_path = DIR/spool/log-%s
pid_file_path = DIR/spool/exim.pid
domainlist hosted = example.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = 25 : 465 : 587
tls_on_connect_ports = 465
tls_advertise_hosts = *
tls_certificate = DIR/fullchain.pem
tls_privatekey = DIR/privkey.pem
disable_ipv6 = true
message_size_limit = 50M
smtp_accept_max = 200
smtp_accept_queue_per_connection = 0
deliver_drop_privilege = true
host_lookup =
rfc1413_query_timeout = 0s
acl_smtp_rcpt = rcpt
keep_environment =
begin acl
rcpt:
  accept authenticated = *
  require message = relay not permitted
          domains = +hosted
  accept condition = ${if eq{$received_port}{25}}
  deny message = authentication is required
begin routers
hosted:
  driver = redirect
  domains = +hosted
  data = ${lookup{$local_part}lsearch{DIR/aliases}}
world:
  driver = dnslookup
  domains = ! +hosted
  transport = ${if def:authenticated_id {signed}{plain}}
  self = send
  no_more
begin transports
plain:
  driver = smtp
signed:
  driver = smtp
  dkim_domain = example.test
  dkim_selector = s1
  dkim_private_key = DIR/dkim.pem
begin retry
* * F,2h,15m; G,16h,1h,1.5; F,4d,6h
begin authenticators
plain_login:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${if crypteq{$auth3}{\{crypt\}${lookup{${local_part:$auth2}}lsearch{DIR/users}}}}
  server_set_id = $auth2
  server_prompts = :
  server_advertise_condition = ${if def:tls_in_cipher}
`

// startExim starts Exim with its configuration where the program looks for it. It is always durable.
func startExim(w *world, c *cage, dir, _ string) error {
	program, err := unpacked("exim4-daemon-light", "exim4")
	if err != nil {
		return err
	}
	owner, err := osuser.Lookup(eximUser)
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)
	conf := strings.NewReplacer("DIR", dir, "PROGRAM", program).Replace(eximConf)
	err = errors.Join(
		write("/etc/exim4/exim4.conf", conf, 0o644),
		write(filepath.Join(dir, "aliases"), eachAlias("%s: %s\n"), 0o644),
		write(filepath.Join(dir, "users"), "app: "+w.bcrypt+"\n", 0o640), os.Chown(filepath.Join(dir, "users"), 0, gid),
		write(filepath.Join(dir, "fullchain.pem"), string(w.chain), 0o644),
		write(filepath.Join(dir, "privkey.pem"), string(w.key), 0o640), os.Chown(filepath.Join(dir, "privkey.pem"), 0, gid),
		write(filepath.Join(dir, "dkim.pem"), string(w.dkimPEM), 0o640), os.Chown(filepath.Join(dir, "dkim.pem"), 0, gid),
		os.MkdirAll(filepath.Join(dir, "spool"), 0o750), os.Chown(filepath.Join(dir, "spool"), uid, gid),
	)
	if err != nil {
		return fmt.Errorf("writing its files: %w", err)
	}
	return c.start(filepath.Join(dir, "log"), program, "-bdf", "-q30m")
}
