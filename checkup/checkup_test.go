package checkup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayd/config"
	"relayd/control"
	"relayd/doctor"
	"relayd/domains"
)

// relayOf is a checkup of a relay with these files below the folder of its settings; nothing was asked yet.
func relayOf(t *testing.T, files map[string]string) *Checkup {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	conf, err := config.Parse(filepath.Join(dir, "relayd.toml"), []byte("hostname = \"mx.example.org\"\n"+files["relayd.toml"]))
	if err != nil {
		t.Fatal(err)
	}
	return &Checkup{conf: conf, domains: domains.Read(conf, conf.DomainsDir()).Current(), target: GmailMX, down: control.ErrNotRunning}
}

func TestWhatTheSettingsSay(t *testing.T) {
	good := map[string]string{"domains/a.example/users": "", "domains/a.example/aliases": "*: me@gmail.com\n"}
	broken := map[string]string{"domains/a.example/users": "", "domains/a.example/aliases": "*: \n"}
	for _, tt := range []struct {
		name  string
		files map[string]string
		runs  bool
		want  doctor.Status
		text  string
	}{
		{"nothing is hosted", nil, false, doctor.Fail, "no domain is hosted"},
		{"all is right", good, false, doctor.OK, "and the files of 1 domain"},
		{"a file is wrong", broken, false, doctor.Fail, "domains/a.example/aliases:1: "},
		{"a file is wrong, and relayd says so itself", broken, true, doctor.OK, "and the files of 1 domain"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := relayOf(t, tt.files)
			if tt.runs {
				c.status = &control.Status{}
			}
			found := c.settings()
			if len(found) != 1 || found[0].Status != tt.want || !strings.Contains(found[0].Text, tt.text) {
				t.Errorf("%+v", found)
			}
		})
	}
}

func TestEveryDomainAndFixedWayIsLookedAt(t *testing.T) {
	c := relayOf(t, map[string]string{
		"domains/a.example/aliases": "", "domains/b.example/aliases": "", "relayd.toml": "[outbound]\nsmarthost = \"smtp://m.example:25\"\n",
	})
	want := map[string]bool{"records of a.example": true, "records of b.example": true, "outbound.smarthost": true, "settings": true, "port 25 outwards": true}
	for _, check := range c.Checks() {
		delete(want, check.Name)
	}
	if len(want) > 0 {
		t.Errorf("without %v", want)
	}
}

func TestGmailIsAskedAboutAMailboxThatMailGoesTo(t *testing.T) {
	c := relayOf(t, map[string]string{
		"domains/a.example/users": "", "domains/a.example/aliases": "x: you@else.example, ü@gmail.com\ny: me@gmail.com, other@gmail.com\n",
	})
	if p := c.probe(); p.Recipient != "me@gmail.com" || p.Spare {
		t.Errorf("%+v", p)
	}
	c.target = "mx.else.example"
	if p := c.probe(); p.Recipient != "" || p.Target != c.target {
		t.Errorf("%+v", p)
	}
}

func TestAListenerOnAllAddressesIsReachedHere(t *testing.T) {
	for address, want := range map[string]string{
		"[::]:587": "127.0.0.1:587", "0.0.0.0:587": "127.0.0.1:587", ":587": "127.0.0.1:587", "192.0.2.1:587": "192.0.2.1:587", "[2001:db8::1]:587": "[2001:db8::1]:587",
	} {
		if got := dialable(address); got != want {
			t.Errorf("%s: %s", address, got)
		}
	}
}
