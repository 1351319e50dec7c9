package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// A peer is a relay that can be measured. Its functions say what to do and keep nothing.
type peer struct {
	name string
	// find returns a name with a version, or an error that says what to install.
	find func(w *world) (string, error)
	// start writes its files below dir and starts it. It may still be coming up when start returns.
	// Only relayd knows other settings than "".
	start func(w *world, c *cage, dir, setting string) error
}

// peers are all that there are, ours first.
var peers = []peer{
	{"relayd", findRelayd, startRelayd},
	{"postfix", findPostfix, startPostfix},
	{"chasquid", findChasquid, startChasquid},
	{"exim", findExim, startExim},
}

// write makes a file and the folders above it.
func write(file, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), mode)
}

// unpacked finds a program of a Debian package, installed or unpacked where ./check does it.
func unpacked(pkg, program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "relayd-check", pkg)
	for _, sub := range []string{"usr/sbin", "usr/bin"} {
		path := filepath.Join(dir, sub, program)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("not installed: cd /tmp && apt-get download %s && mkdir -p %s && dpkg -x %s_*.deb %s", pkg, dir, pkg, dir)
}

// need looks for programs of packages that are installed.
func need(programs ...string) error {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s is not installed", p)
		}
	}
	return nil
}

// version is the first thing like a version in what a program says, "?" if there is none.
func version(name string, args ...string) string {
	out, _ := exec.Command(name, args...).CombinedOutput() // some say it and fail
	if v := versionLike.Find(out); v != nil {
		return string(v)
	}
	return "?"
}

var versionLike = regexp.MustCompile(`[0-9]+(\.[0-9]+)+`)

// ready waits until a peer listens on all ports of mail, and speaks on the first.
func ready() error {
	deadline := time.Now().Add(30 * time.Second)
	for _, port := range []string{"25", "465", "587"} {
		for {
			err := greets(port)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("it does not come up: port %s: %w", port, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	return nil
}

func greets(port string) error {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(relayHost, port), 5*time.Second)
	if err != nil || port == "465" {
		if err == nil {
			conn.Close()
		}
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	greeting := make([]byte, 100)
	n, err := conn.Read(greeting)
	if err == nil && !strings.HasPrefix(string(greeting[:n]), "220") {
		return errors.New(strings.TrimSpace(string(greeting[:n])))
	}
	_, _ = conn.Write([]byte("QUIT\r\n"))
	return err
}

func findRelayd(w *world) (string, error) {
	return "relayd " + os.Getenv("COMPARE_COMMIT"), nil
}

// The settings of relayd other than as shipped.
const (
	durable  = "durable"  // every message is on disk before the answer
	unsigned = "unsigned" // there is no DKIM key
)

// startRelayd has relayd in its own folder.
func startRelayd(w *world, c *cage, dir, setting string) error {
	conf := fmt.Sprintf("hostname = %q\nstate_dir = %q\n[listen]\nsmtp = [\"127.0.0.1:25\"]\nsubmission = [\"127.0.0.1:587\"]\nsubmissions = [\"127.0.0.1:465\"]\n",
		hostname, filepath.Join(dir, "state"))
	if setting == durable {
		conf += "[forward]\nanswer_within = \"0s\"\n"
	}
	err := errors.Join(
		write(filepath.Join(dir, "relayd.toml"), conf, 0o644),
		write(filepath.Join(dir, "domains/example.test/aliases"), eachAlias("%s: %s\n"), 0o644),
		write(filepath.Join(dir, "domains/example.test/users"), "app:"+w.bcrypt+"\n", 0o640),
		write(filepath.Join(dir, "certs/mx/fullchain.pem"), string(w.chain), 0o644),
		write(filepath.Join(dir, "certs/mx/privkey.pem"), string(w.key), 0o600),
	)
	if setting != unsigned {
		err = errors.Join(err, write(filepath.Join(dir, "domains/example.test/dkim/s1.pem"), string(w.dkimPEM), 0o600))
	}
	if err != nil {
		return err
	}
	return c.start(filepath.Join(dir, "log"), filepath.Join(w.dir, "relayd"), "-c", filepath.Join(dir, "relayd.toml"))
}
