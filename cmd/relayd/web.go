package main

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
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
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug), // what strangers send is not our error
	}
}

// serveWeb serves one address until the daemon goes down.
func (d *daemon) serveWeb(l net.Listener, encrypted bool) error {
	l = netutil.LimitListener(l, maxVisitors)
	if encrypted {
		return d.public.ServeTLS(l, "", "")
	}
	return d.public.Serve(l)
}
