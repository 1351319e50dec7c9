//go:build interop

package interop

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"relayd/internal/sink"
)

// nmap knows 16 dialogs that open relays fall for. Its script speaks to the ports of mail only, so
// the ports are made mail's by a name.
func TestNmapFindsNoOpenRelay(t *testing.T) {
	s, snk := newWorld(t, sink.Options{}, "")
	d := s.start()
	for _, service := range []string{"smtp", "submission"} {
		cmd := exec.Command(peer(t, "nmap"), "-Pn", "-n", "-p", d.port(service), "--script", "+smtp-open-relay",
			"--script-args", "smtp-open-relay.domain=elsewhere.test,smtp-open-relay.ip=127.0.0.1", "127.0.0.1")
		out := mustRun(t, cmd)
		if !strings.Contains(out, "smtp-open-relay: Server doesn't seem to be an open relay, all tests failed") &&
			!strings.Contains(out, "smtp-open-relay: Server isn't an open relay, authentication needed") {
			t.Errorf("on %s nmap says:\n%s", service, out)
		}
	}
	time.Sleep(time.Second) // for mail that should not be on its way
	for _, m := range snk.Messages() {
		for _, to := range m.Rcpts {
			if to != "you@mailbox.test" {
				t.Errorf("mail for %s has left", to)
			}
		}
	}
}
