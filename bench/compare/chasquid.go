package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

func findChasquid(*world) (string, error) {
	path, err := unpacked("chasquid", "chasquid")
	if err != nil {
		return "", err
	}
	if err := need("dkimsign"); err != nil {
		return "", fmt.Errorf("%w, which signs for it: apt-get install python3-dkim", err)
	}
	return fmt.Sprintf("chasquid %s, dkimpy %s in its hook", version(path, "--version"), version("dpkg-query", "-W", "python3-dkim")), nil
}

// chasquidHook signs as the hook does that comes with chasquid, whose spam filters it leaves out.
const chasquidHook = `#!/bin/bash
set -e
[ "$AUTH_AS" != "" ] || exit 0
TF="$(mktemp --tmpdir post-data-XXXXXXXXXX)"
trap 'rm -f "$TF" "$TF.out"' EXIT
cat > "$TF"
dkimsign s1 example.test DIR/dkim.pem < "$TF" > "$TF.out"
diff --changed-group-format='%>' --unchanged-group-format='' "$TF" "$TF.out" && exit 1
exit 0
`

// startChasquid starts chasquid, which is always durable as far as it goes.
func startChasquid(w *world, c *cage, dir string, _ bool) error {
	daemon, err := unpacked("chasquid", "chasquid")
	if err != nil {
		return err
	}
	util, err := unpacked("chasquid", "chasquid-util")
	if err != nil {
		return err
	}
	conf := fmt.Sprintf("hostname: %q\nmax_data_size_mb: 50\nsmtp_address: \"127.0.0.1:25\"\nsubmission_address: \"127.0.0.1:587\"\nsubmission_over_tls_address: \"127.0.0.1:465\"\n"+
		"data_dir: %q\nmail_log_path: %q\n", hostname, filepath.Join(dir, "data"), filepath.Join(dir, "mail.log"))
	err = errors.Join(
		write(filepath.Join(dir, "chasquid.conf"), conf, 0o644),
		write(filepath.Join(dir, "domains/example.test/aliases"), eachAlias("%s: %s\n"), 0o644),
		write(filepath.Join(dir, "certs/"+hostname+"/fullchain.pem"), string(w.chain), 0o644),
		write(filepath.Join(dir, "certs/"+hostname+"/privkey.pem"), string(w.key), 0o600),
		write(filepath.Join(dir, "dkim.pem"), string(w.dkimPEM), 0o600),
		write(filepath.Join(dir, "hooks/post-data"), strings.ReplaceAll(chasquidHook, "DIR", dir), 0o755),
	)
	if err != nil {
		return err
	}
	if out, err := exec.Command(util, "-C="+dir, "user-add", user, "--password="+password).CombinedOutput(); err != nil {
		return fmt.Errorf("chasquid-util user-add: %w: %s", err, out)
	}
	return c.start(filepath.Join(dir, "log"), daemon, "--config_dir="+dir)
}
