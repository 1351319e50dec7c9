package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"relayd/config"
)

// TestLimitsAreOfTheRealClient: behind a proxy all would else be one source.
func TestLimitsAreOfTheRealClient(t *testing.T) {
	file := files(t, map[string]string{"relayd.toml": fmt.Sprintf("hostname = \"mx.example.test\"\nstate_dir = %q\n[listen]\nsmtp = [\"127.0.0.1:0\"]\nsubmission = []\nsubmissions = []\nproxy_from = [\"127.0.0.1\"]\n[limits]\nconnections_per_ip = 1\n", t.TempDir())})
	conf, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	d, err := start(ctx, conf, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ client, want string }{
		{"192.0.2.7", "220 "}, {"192.0.2.7", "421 4.7.0 Too many connections from 192.0.2.7"}, {"192.0.2.8", "220 "}, {"2001:db8::1", "220 "}, {"2001:db8::2", "421 4.7.0"},
	} {
		conn, err := net.Dial("tcp", d.Address("smtp"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		family, server := "TCP4", "198.51.100.1"
		if strings.Contains(c.client, ":") {
			family, server = "TCP6", "2001:db8::25"
		}
		fmt.Fprintf(conn, "PROXY %s %s %s 4711 25\r\n", family, c.client, server)
		if got, err := bufio.NewReader(conn).ReadString('\n'); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", c.client, got, err, c.want)
		}
	}
	stop()
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}
