package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"relayd/dkim"
)

func findChasquid(*world) (string, error) {
	path, err := unpacked("chasquid", "chasquid")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("chasquid %s, whose hook signs by a small program in Go", version(path, "--version")), nil
}

// chasquidHook signs in place of the dkimsign that the hook of chasquid 1.11 calls. The one in Debian is
// in Python and takes most of a second for each message; later versions sign by themselves.
const chasquidHook = "#!/bin/sh\n[ -n \"$AUTH_AS\" ] || exit 0\n" + signer + "=DIR/dkim.pem exec SELF\n"

// signer names the variable that makes this program a signer, and has the file of the key.
const signer = "RELAYD_COMPARE_SIGN"

// sign reads a message and prints the field to put in front of it.
func sign(keyFile string) error {
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	key, err := dkim.ParseKey("example.test", "s1", text)
	if err != nil {
		return err
	}
	field, err := dkim.Sign(os.Stdin, []*dkim.Key{key}, time.Now())
	if err == nil {
		_, err = io.WriteString(os.Stdout, field)
	}
	return err
}

// startChasquid starts chasquid, which is always durable as far as it goes.
func startChasquid(w *world, c *cage, dir, _ string) error {
	daemon, err := unpacked("chasquid", "chasquid")
	if err != nil {
		return err
	}
	util, err := unpacked("chasquid", "chasquid-util")
	if err != nil {
		return err
	}
	self, err := os.Executable()
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
		write(filepath.Join(dir, "hooks/post-data"), strings.NewReplacer("DIR", dir, "SELF", self).Replace(chasquidHook), 0o755),
	)
	if err != nil {
		return err
	}
	if out, err := exec.Command(util, "-C="+dir, "user-add", user, "--password="+password).CombinedOutput(); err != nil {
		return fmt.Errorf("chasquid-util user-add: %w: %s", err, out)
	}
	return c.start(filepath.Join(dir, "log"), daemon, "--config_dir="+dir)
}
