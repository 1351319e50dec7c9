package main

import (
	"bytes"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What goes wrong in a web server is in relayd's own log, at the level at which somebody reads it.
func TestWebServersLogTheirPanics(t *testing.T) {
	var out bytes.Buffer
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("in a web page") }))
	s.Config.ErrorLog = log.New(webLog{slog.New(slog.NewTextHandler(&out, nil))}, "", 0)
	s.Start()
	if answer, err := http.Get(s.URL); err == nil {
		answer.Body.Close()
		t.Errorf("answered %s", answer.Status)
	}
	s.Config.ErrorLog.Print("http: TLS handshake error from 192.0.2.1:4711: EOF")
	s.Close()
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "in a web page") || !strings.Contains(got, "goroutine") {
		t.Errorf("the log says\n%s", got)
	}
}
