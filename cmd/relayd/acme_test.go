package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"relayd/config"
)

func TestCheckJudgesACME(t *testing.T) {
	const top = "hostname = \"mx.example.test\"\npostmaster = \"me@elsewhere.test\"\n[acme]\nenabled = true\n"
	const dns = "challenge = \"dns-01\"\n"
	for settings, want := range map[string]string{
		"webroot = \"/nonexistent\"\n":                               "relayd.toml: acme.webroot: there is no folder /nonexistent",
		dns + "provider = \"cloudflare\"\ndns = { token = \"x\" }\n": "warning: ", // there is no certificate yet
		dns + "provider = \"cloudflare\"\ndns = { tokn = \"x\" }\n":  "relayd.toml: acme.dns: cloudflare has no setting \"tokn\"",
		dns + "provider = \"cloudfare\"\n":                           "relayd.toml: acme.dns: provider \"cloudfare\" is not known",
	} {
		var out bytes.Buffer
		code := run([]string{"-check", "-c", files(t, map[string]string{"relayd.toml": top + settings})}, &out, &out)
		if !strings.Contains(out.String(), want) || (code == 0) != strings.HasPrefix(want, "warning") {
			t.Errorf("%s: exit %d\n%s", settings, code, &out)
		}
	}
}

// startWith starts a daemon with settings behind those that every test needs.
func startWith(t *testing.T, settings string) *daemon {
	t.Helper()
	file := files(t, map[string]string{"relayd.toml": fmt.Sprintf("hostname = \"mx.example.test\"\npostmaster = \"me@elsewhere.test\"\nstate_dir = %q\n"+
		"[listen]\nsmtp = [\"127.0.0.1:0\"]\nsubmission = []\nsubmissions = []\nhttp = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\"]\n%s", t.TempDir(), settings)})
	conf, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	d, err := start(ctx, conf, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := d.Wait(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestTheWebServerHasNothingForVisitors(t *testing.T) {
	d := startWith(t, "")
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	for _, url := range []string{"http://" + d.Address("http") + "/", "https://" + d.Address("https") + "/.well-known/acme-challenge/x"} {
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusNotFound || len(text) > 100 {
			t.Errorf("%s: %s %q, %v", url, resp.Status, text, err)
		}
	}
	conn, err := net.Dial("tcp", d.Address("http"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n", strings.Repeat("x", 14<<10))
	if text, _ := io.ReadAll(conn); !bytes.Contains(text, []byte(" 431 ")) {
		t.Errorf("a large header: %.60q", text)
	}
}

// TestADaemonWithoutItsCA serves on, and tells.
func TestADaemonWithoutItsCA(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	d := startWith(t, fmt.Sprintf("[acme]\nenabled = true\ndirectory = \"https://%s/dir\"\n", l.Addr()))
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		list := d.Status().ACME
		if len(list) == 1 && list[0].Urgent && strings.Contains(list[0].Text, "connection refused") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", list)
		}
	}
	if s := d.Status(); !s.Certs[0].SelfSigned {
		t.Errorf("%+v", s.Certs)
	}
}
