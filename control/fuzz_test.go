package control

import (
	"bufio"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Whatever comes in by the socket: an answer, never a panic, and nothing is changed by who does not ask
// for a change in the way of one.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET /status HTTP/1.1\r\nHost: x\r\n\r\n", "POST /reload HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /queue/list HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n{\"all\":true}   ", "GET /queue/messages/AAAAAAAA HTTP/1.0\r\n\r\n",
		"GET /queue/messages/..%2f..%2fetc%2fpasswd/eml HTTP/1.0\r\n\r\n", "GET /queue/messages/%00/eml HTTP/1.0\r\n\r\n", "GET /queue/groups?limit=-1 HTTP/1.0\r\n\r\n",
		"POST /queue/remove HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{\"ids\":[\"AAAAAAAA\"]}", "POST /queue/hold HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"all\r\n0\r\n\r\n",
		"GET /queue/remove HTTP/1.0\r\n\r\n", "POST /queue/count HTTP/1.0\r\nContent-Length: 2\r\n\r\n[]", "DELETE / HTTP/1.0\r\n\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			return
		}
		if req.URL == nil || req.URL.Path == "/queue/check" {
			return // which reads the whole queue
		}
		d := &fake{envelopes: threeMessages()}
		w := httptest.NewRecorder()
		NewServer(d, d, slog.New(slog.DiscardHandler)).http.Handler.ServeHTTP(w, req)
		if w.Code < 200 || w.Code > 599 {
			t.Errorf("%q is answered with %d", text, w.Code)
		}
		if len(d.done) > 0 && (req.Method != "POST" || !strings.HasPrefix(req.URL.Path, "/queue/")) {
			t.Errorf("%q does %q", text, d.done)
		}
	})
}
