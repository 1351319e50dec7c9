//go:build interop

package interop

import (
	"fmt"
	"strings"
	"testing"

	"relayd/internal/sink"
	"relayd/internal/testnet"
)

// TestSocketActivation: systemd opens the ports, relayd takes them by name.
func TestSocketActivation(t *testing.T) {
	s, snk := newWorld(t, sink.Options{}, "")
	conf := strings.Replace(s.read("relayd.toml"), localListeners,
		"[listen]\nsmtp = [\"systemd:mx\"]\nsubmission = [\"systemd:starttls\"]\nsubmissions = [\"systemd:tls\"]\n", 1)
	s.write("relayd.toml", conf)
	ports := map[string]int{}
	var args []string
	for _, name := range []string{"mx", "starttls", "tls"} {
		ports[name] = testnet.LocalPort(t)
		args = append(args, "-l", fmt.Sprintf("127.0.0.1:%d", ports[name]))
	}
	args = append(args, "--fdname=mx:starttls:tls", program(t, "relayd"), "-c", s.config())
	d := s.launch(s.command(peer(t, "systemd-socket-activate"), args...))
	d.log.await(t, "systemd listens", func(l logLine) bool { return strings.Contains(l.text("msg"), fmt.Sprint(ports["tls"])) }, d.done)
	dial(t, fmt.Sprintf("127.0.0.1:%d", ports["mx"])).close() // the connection that starts it
	d.awaitUp()
	for service, name := range map[string]string{"smtp": "mx", "submission": "starttls", "submissions": "tls"} {
		if got, want := d.port(service), fmt.Sprint(ports[name]); got != want {
			t.Errorf("%s listens on port %s, want %s", service, got, want)
		}
	}
	s.write("domains/example.test/aliases", "box: you@mailbox.test\n")
	s.flows(d, snk)
	if c := s.submit(d, "submissions", "app@example.test"); c != nil {
		c.play("> QUIT\n< 221")
	}

	d.stop()
	s.write("relayd.toml", strings.Replace(conf, "systemd:tls", "systemd:missing", 1))
	alone := s.launch(s.command(program(t, "relayd"), "-c", s.config()))
	if code := alone.exitCode(); code == 0 || !alone.log.has("no socket named") {
		t.Errorf("without the socket relayd exits with %d:\n%s", code, alone.log.tail(5))
	}
}
