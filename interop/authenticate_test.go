//go:build interop

package interop

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"relayd/internal/sink"
)

// logins are those that relay-util authenticate is asked about, and its exit codes.
var logins = []struct {
	name, user, password string
	code                 int
}{
	{"right", "app@example.test", password, 0},
	{"wrong", "app@example.test", "wrong horse", 1},
	{"unknown user", "nobody@example.test", password, 1},
	{"unknown domain", "app@elsewhere.test", password, 1},
	{"disabled", "gone@example.test", password, 1},
}

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	s, _ := newWorld(t, sink.Options{}, "")
	s.addDomain("example.test", "*: you@mailbox.test\n", "app", "gone")
	s.mustUtil("user-disable", "gone@example.test")
	for _, l := range logins {
		stdout, stderr, code := s.util("authenticate", l.user, "--password="+l.password)
		if code != l.code {
			t.Errorf("%s: exit %d, want %d\n%s%s", l.name, code, l.code, stdout, stderr)
		}
		t.Logf("%s: exit %d, %q", l.name, code, strings.TrimSpace(stdout+stderr))
	}
	if _, _, code := s.util("authenticate"); code != 2 {
		t.Errorf("without an address: exit %d, want 2", code)
	}

	// The same by SMTP, where all that fail sound the same.
	d := s.start()
	answers := map[string]bool{}
	for _, l := range logins {
		c := dialTLS(t, d.address("submissions"), s.tlsConfig())
		c.say("EHLO client.test", "250 ")
		got := c.login(l.user, l.password)
		c.close()
		if strings.HasPrefix(got, "235 ") != (l.code == 0) {
			t.Errorf("%s: %s", l.name, got)
		}
		if l.code != 0 {
			answers[got] = true
		}
	}
	if len(answers) != 1 {
		t.Errorf("the refusals differ: %v", answers)
	}
}

// TestHtpasswd: Apache's htpasswd makes and changes users.
func TestHtpasswd(t *testing.T) {
	s, _ := newWorld(t, sink.Options{}, "")
	d := s.start()
	file := s.path("domains/example.test/users")
	mustRun(t, exec.Command(peer(t, "htpasswd"), "-c", "-b", "-B", "-C", "5", file, "apache", password))
	waitFor(t, "the user that htpasswd made", inForceWithin, func() bool { return s.canLogin(d, "apache@example.test") })
	s.mustUtil("authenticate", "apache@example.test", "--password="+password)
	s.mustUtil("user-passwd", "apache@example.test", "--password=another horse")
	if out, err := exec.Command(peer(t, "htpasswd"), "-v", "-b", file, "apache", "another horse").CombinedOutput(); err != nil {
		t.Errorf("htpasswd does not take the password that relay-util set: %v\n%s", err, out)
	}
	waitFor(t, "the old password is out", inForceWithin, func() bool { return !s.canLogin(d, "apache@example.test") })
	if s.canLogin(d, "app@example.test") {
		t.Error("a user who is not in the file any more can log in")
	}
}

// TestAuthenticateTakesAsLong: the time does not tell why a login fails. It measures, so it is run
// by ./check --full only.
func TestAuthenticateTakesAsLong(t *testing.T) {
	s, _ := newWorld(t, sink.Options{}, "")
	s.write("relayd.toml", strings.Replace(s.read("relayd.toml"), "bcrypt_cost = 4", "bcrypt_cost = 10", 1))
	s.write("domains/example.test/users", "")
	for _, user := range []string{"app", "gone"} {
		s.mustUtil("user-add", user+"@example.test", "--password="+password)
	}
	s.mustUtil("user-disable", "gone@example.test")
	times := map[string][]time.Duration{}
	for range 200 {
		for _, l := range logins { // in turn, so that a slow minute hits all of them
			began := time.Now()
			s.util("authenticate", l.user, "--password="+l.password)
			times[l.name] = append(times[l.name], time.Since(began))
		}
	}
	var medians []time.Duration
	figures := ""
	for _, l := range logins {
		slices.Sort(times[l.name])
		m := times[l.name][len(times[l.name])/2]
		medians = append(medians, m)
		figures += fmt.Sprintf("  %s %s", l.name, m.Round(10*time.Microsecond))
	}
	spread := float64(slices.Max(medians))/float64(slices.Min(medians)) - 1
	t.Logf("medians of 200:%s; spread %.1f %%", figures, 100*spread)
	if spread > 0.05 {
		t.Errorf("the medians differ by %.1f %%", 100*spread)
	}
}
