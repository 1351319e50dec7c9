package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayd/config"
	"relayd/delivery"
	"relayd/dns"
)

func TestStatusTellsOfTLSThatIsGone(t *testing.T) {
	state := t.TempDir()
	file := files(t, map[string]string{"relayd.toml": fmt.Sprintf(
		"hostname = \"mx.example.test\"\nstate_dir = %q\n[listen]\nsmtp = [\"127.0.0.1:0\"]\nsubmission = []\nsubmissions = []\n", state)})
	conf, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	at := func(ago time.Duration) string { return time.Now().Add(-ago).Format(time.RFC3339) }
	hosts := fmt.Sprintf(`{"mx.elsewhere.test":{"since":%q,"last":%q,"lost":%[2]q,"clear":%[3]q}}`, at(900*time.Hour), at(30*time.Hour), at(time.Hour))
	if err := os.WriteFile(filepath.Join(state, "tls-hosts"), []byte(hosts), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	d, err := start(ctx, conf, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if s := d.Status(); !strings.Contains(s.Warnings.Error(), "mx.elsewhere.test used to have TLS; since ") {
		t.Errorf("warnings: %v", s.Warnings)
	}
	stop()
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
	for _, folder := range []string{"mta-sts", "tlsrpt"} {
		name := filepath.Join(state, folder)
		if err := os.RemoveAll(name); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := start(t.Context(), conf, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("started although %s is a file", folder)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// What was learned of destinations is there after a restart; a damaged file is as none, with a word
// in the log.
func TestDestinationsAreKept(t *testing.T) {
	state := t.TempDir()
	file := files(t, map[string]string{"relayd.toml": fmt.Sprintf(
		"hostname = \"mx.example.test\"\nstate_dir = %q\n[listen]\nsmtp = [\"127.0.0.1:0\"]\nsubmission = []\nsubmissions = []\n", state)})
	conf, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(9 * time.Minute).UTC().Format(time.RFC3339)
	saved := fmt.Sprintf(`{"paused":{"google.com":%q},"ipv6":{"google.com":{"until":%[1]q,"advice":"Do something."}},"mailboxes":{}}`, until)
	for _, c := range []struct{ content, damaged string }{{saved, ""}, {"", ""}, {"{", "is forgotten"}} {
		if c.content != "" {
			if err := os.WriteFile(filepath.Join(state, "destinations"), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var log bytes.Buffer
		ctx, stop := context.WithCancel(context.Background())
		d, err := start(ctx, conf, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))
		if err != nil {
			t.Fatal(err)
		}
		list, warnings := d.Destinations(), d.Status().Warnings.Error()
		stop()
		if err := d.Wait(); err != nil {
			t.Error(err)
		}
		if c.damaged != "" {
			if len(list) > 0 || !strings.Contains(log.String(), c.damaged) {
				t.Errorf("%v; %s", list, &log)
			}
			continue
		}
		if len(list) != 1 || list[0].Name != "google.com" || list[0].Paused.UTC().Format(time.RFC3339) != until || list[0].Note != "no IPv6 until "+until ||
			!strings.Contains(warnings, "google.com takes no mail from us over IPv6; until "+until+" it goes over IPv4. Do something.") {
			t.Errorf("%+v; %s", list, warnings)
		}
	}
}

// TestWordsOfTheSettings: what config calls by a name is known under it where it is used.
func TestWordsOfTheSettings(t *testing.T) {
	for word, want := range map[string]delivery.Demand{
		config.TLSNone: delivery.DemandNone, config.TLSMay: delivery.DemandMay,
		config.TLSEncrypt: delivery.DemandEncrypt, config.TLSVerify: delivery.DemandVerify,
	} {
		if got := demands(map[string]string{"*": word})["*"]; got != want {
			t.Errorf("%s is %s", word, got)
		}
	}
	for word, want := range map[config.Trust]dns.Trust{
		config.TrustAuto: dns.TrustLocal, config.TrustYes: dns.TrustAll, config.TrustNo: dns.TrustNone,
	} {
		if got := trust(word); got != want {
			t.Errorf("%d is %d", word, got)
		}
	}
	for word, want := range map[string]string{config.IPAuto: "ip", config.IPv4: "ip4", config.IPv6: "ip6"} {
		if got := network(word); got != want {
			t.Errorf("%s is %s", word, got)
		}
	}
}

// -check and the status name a source address that this machine does not have.
func TestSourceAddressIsChecked(t *testing.T) {
	file := files(t, map[string]string{"relayd.toml": "hostname = \"mx.example.test\"\n[outbound]\nsource_ipv4 = \"192.0.2.77\"\n"})
	var out bytes.Buffer
	if code := checkAll(file, &out); code != exitOK || !strings.Contains(out.String(), "relayd.toml: No connection can come from 192.0.2.77") {
		t.Errorf("%d: %s", code, out.String())
	}
	conf, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	conf.StateDir = t.TempDir()
	o, err := (&daemon{conf: conf, log: slog.New(slog.DiscardHandler)}).newOutbound()
	if err != nil {
		t.Fatal(err)
	}
	defer o.client.Close()
	if w := o.client.Warnings(); len(w) != 1 || !strings.Contains(w[0], "source_ipv4") {
		t.Errorf("%q", w)
	}
}

// The status tells of a domain that lives on an old copy, and of an srs_domain that has no key.
func TestStatusTellsOfAnOldCopy(t *testing.T) {
	file := files(t, map[string]string{
		"relayd.toml": fmt.Sprintf("hostname = \"mx.example.test\"\nstate_dir = %q\n[listen]\nsmtp = [\"127.0.0.1:0\"]\nsubmission = []\nsubmissions = []\n"+
			"[forward]\nsrs_domain = \"srs.example.test\"\n", t.TempDir()),
		"domains/example.test/aliases": "*: me@elsewhere.test\n",
	})
	conf, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	d, err := start(ctx, conf, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(conf.DomainsDir(), "example.test", "aliases"), []byte("broken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Reload()
	s := d.Status()
	if len(s.Domains) != 1 || !s.Domains[0].Stale || s.Domains[0].Broken || s.Domains[0].Aliases != 1 {
		t.Errorf("%+v", s.Domains)
	}
	if !strings.Contains(s.Warnings.Error(), "relayd.toml:8: srs_domain: srs.example.test is not hosted here") {
		t.Error(s.Warnings)
	}
	stop()
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}
