//go:build interop

package interop

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// exposed is the most that systemd-analyze may find open in relayd.service, in tenths. What is left
// is the network, the port below 1024, and the machine's own folders and users.
const exposed = 15

// TestUnits: systemd understands the units in etc/, and finds the service well shut.
func TestUnits(t *testing.T) {
	dir := t.TempDir()
	units, err := filepath.Glob(filepath.Join(root, "etc", "relayd*.s*e*"))
	if err != nil || len(units) != 4 {
		t.Fatalf("units %v, %v", units, err)
	}
	for i, unit := range units {
		text := strings.ReplaceAll(string(readFile(t, unit)), "/usr/local/bin/relayd", program(t, "relayd"))
		units[i] = filepath.Join(dir, filepath.Base(unit))
		if err := os.WriteFile(units[i], []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	analyze := peer(t, "systemd-analyze")
	// The manual pages that the units name are not installed here.
	if out, err := exec.Command(analyze, append([]string{"verify", "--man=no"}, units...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	out, err := exec.Command(analyze, "security", "--offline=yes", fmt.Sprintf("--threshold=%d", exposed), filepath.Join(dir, "relayd.service")).CombinedOutput()
	t.Log(regexp.MustCompile(`Overall exposure level.*`).FindString(string(out)))
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

// TestNotify: relayd tells systemd when it serves, not before, and when it goes down.
func TestNotify(t *testing.T) {
	s := newSite(t, localListeners)
	name := s.path("notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	await := func(want string) {
		t.Helper()
		for b := make([]byte, 4096); ; {
			n, err := conn.Read(b)
			if err != nil {
				t.Fatalf("%s is never said: %v", want, err)
			}
			if strings.Contains("\n"+string(b[:n])+"\n", "\n"+want+"\n") {
				return
			}
		}
	}
	cmd := s.command(program(t, "relayd"), "-c", s.config())
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+name)
	d := s.launch(cmd)
	await("READY=1")
	dial(t, d.address("smtp")).close()
	go d.stop()
	await("STOPPING=1")
	<-d.done
}

// TestPrograms: both are of one release, and what they say of themselves makes sound manual pages.
func TestPrograms(t *testing.T) {
	server, tool := program(t, "relayd"), program(t, "relay-util")
	ours := strings.TrimPrefix(mustRun(t, exec.Command(server, "-version")), "relayd ")
	if got := mustRun(t, exec.Command(tool, "--version")); got != "relay-util version "+ours {
		t.Errorf("relay-util is %q, relayd %q", got, ours)
	}
	usage, err := exec.Command(server, "-help").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	for page, source := range map[string]string{
		"relay-util":  "",
		"relayd":      string(usage),
		"relayd.toml": string(readFile(t, filepath.Join(root, "etc/relayd.toml"))),
		"domain.toml": string(readFile(t, filepath.Join(root, "etc/domain.toml"))),
	} {
		cmd := exec.Command(tool, "manual", page)
		cmd.Stdin = strings.NewReader(source)
		text := mustRun(t, cmd)
		cmd = exec.Command(peer(t, "groff"), "-man", "-ww", "-z", "-Tutf8")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("the page of %s: %v\n%s", page, err, out)
		}
	}
}
