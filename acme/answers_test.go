package acme

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func get(a *Answers, method, path string) (int, string) {
	w := httptest.NewRecorder()
	a.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, w.Body.String()
}

func TestAnswersByHTTP(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077)) // the other web server has to read it all the same
	a := &Answers{Webroot: t.TempDir()}
	if err := a.put("tok-en_1", "tok-en_1.thumb"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.Webroot, "secret"), []byte("s"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path string
		code         int
	}{
		{"GET", ChallengePath + "tok-en_1", 200}, {"HEAD", ChallengePath + "tok-en_1", 200}, {"POST", ChallengePath + "tok-en_1", 404},
		{"GET", ChallengePath, 404}, {"GET", ChallengePath + "other", 404}, {"GET", "/", 404}, {"GET", "/tok-en_1", 404},
		{"GET", ChallengePath + "../../secret", 404}, {"GET", ChallengePath + "..%2f..%2fsecret", 404}, {"GET", ChallengePath + "%2e%2e/%2e%2e/secret", 404},
		{"GET", "/secret", 404}, {"GET", "//secret", 404}, {"GET", ChallengePath + "/tok-en_1", 404}, {"GET", ChallengePath + "..\\secret", 404},
		{"GET", ChallengePath + "tok-en_1%00", 404},
	} {
		if code, _ := get(a, c.method, c.path); code != c.code {
			t.Errorf("%s %s: %d", c.method, c.path, code)
		}
	}
	if _, text := get(a, http.MethodGet, ChallengePath+"tok-en_1"); text != "tok-en_1.thumb" {
		t.Errorf("answer %q", text)
	}
	file := filepath.Join(a.Webroot, ChallengePath, "tok-en_1")
	for name, mode := range map[string]os.FileMode{file: 0o644, filepath.Dir(file): 0o755, filepath.Dir(filepath.Dir(file)): 0o755} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if err := a.remove("tok-en_1"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(os.WriteFile(secret, []byte("s"), 0o600), os.Symlink(secret, file), a.put("tok-en_1", "new")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(secret); err != nil || info.Mode().Perm() != 0o600 || info.Size() != 1 {
		t.Errorf("what a link in the place of an answer leads to: %v, %v", info, err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "new" {
		t.Errorf("%q, %v", text, err)
	}
	for _, token := range []string{"", "../../x", "a/b", "a.b", "a\x00", "..", "/etc", `a\b`, "%2e%2e", "a\n", "ü"} {
		if a.put(token, "x") == nil {
			t.Errorf("the token %q was taken", token)
		}
	}
	if err := (&Answers{Webroot: "/nonexistent"}).put("t", "x"); err == nil {
		t.Error("written into a folder that is not there")
	}
}

// TestAnswersByALPN: a CA sees the certificate of its challenge; everybody else the server's own.
func TestAnswersByALPN(t *testing.T) {
	var a Answers
	pair := issue(t, "mx.example.org", 1, time.Now(), day)
	own, err := tls.X509KeyPair(pair.Chain, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := (alpnAnswers{&a}).Present("mx.example.org", "token", "token.thumb"); err != nil {
		t.Fatal(err)
	}
	config := a.TLSConfig(&tls.Config{Certificates: []tls.Certificate{own}, NextProtos: []string{"http/1.1"}})
	shown := func(name string, protocols ...string) string {
		client, server := net.Pipe()
		defer client.Close()
		defer server.Close()
		done := make(chan struct{})
		go func() {
			defer close(done)
			tls.Server(server, config).Handshake() // the client's error tells
		}()
		conn := tls.Client(client, &tls.Config{ServerName: name, NextProtos: protocols, InsecureSkipVerify: true})
		err := conn.Handshake()
		client.Close()
		<-done
		if err != nil {
			return "error"
		}
		state := conn.ConnectionState()
		for _, x := range state.PeerCertificates[0].Extensions {
			if x.Id.String() == "1.3.6.1.5.5.7.1.31" && x.Critical {
				return "challenge by " + state.NegotiatedProtocol
			}
		}
		return "own by " + state.NegotiatedProtocol
	}
	check := func(want string, name string, protocols ...string) {
		t.Helper()
		if got := shown(name, protocols...); got != want {
			t.Errorf("%s %v: %s", name, protocols, got)
		}
	}
	check("challenge by acme-tls/1", "MX.example.org", alpnProtocol)
	check("own by http/1.1", "mx.example.org", "http/1.1")
	check("own by ", "mx.example.org")
	check("error", "other.example.org", alpnProtocol)
	if err := (alpnAnswers{&a}).CleanUp("mx.example.org", "token", ""); err != nil {
		t.Error(err)
	}
	check("error", "mx.example.org", alpnProtocol)
}
