package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

// maxVisitors bounds the connections to each address of the web server, which has little to say.
const maxVisitors = 100

// newWeb makes the web server for the world. It answers CAs that check a name, and everybody else
// with 404.
func (d *daemon) newWeb() *http.Server {
	return &http.Server{
		Handler: d.answers, TLSConfig: d.answers.TLSConfig(d.certs.TLSConfig()), TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10,
		ErrorLog: log.New(webLog{d.log}, "", 0),
	}
}

// A webLog takes what net/http logs and gives it the level that it has for the admin: what strangers send
// is not our error, but a panic is, and a connection that cannot be taken.
type webLog struct{ *slog.Logger }

func (l webLog) Write(line []byte) (int, error) {
	level := slog.LevelDebug
	if bytes.HasPrefix(line, []byte("http: panic")) || bytes.HasPrefix(line, []byte("http: Accept error")) {
		level = slog.LevelError
	}
	l.Log(context.Background(), level, "from the web server", "error", strings.TrimSpace(string(line)))
	return len(line), nil
}

// serveWeb serves one address until the daemon goes down.
func (d *daemon) serveWeb(l net.Listener, encrypted bool) error {
	l = netutil.LimitListener(l, maxVisitors)
	if encrypted {
		return d.public.ServeTLS(l, "", "")
	}
	return d.public.Serve(l)
}
