//go:build interop

package interop

import (
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"relayd/internal/sink"
)

// Users of a chasquid log in with the passwords they had there, and leave hashes by bcrypt behind.
// The sample was made by Debian's chasquid-util.
func TestUsersOfChasquidKeepTheirPasswords(t *testing.T) {
	s, _ := newWorld(t, sink.Options{}, "")
	s.mustUtil("import-chasquid", "../moving/testdata/chasquid")
	const file = "domains/example.org/users"
	if n := strings.Count(s.read(file), "$scrypt$"); n != 2 {
		t.Fatalf("%d hashes by scrypt", n)
	}
	d := s.start()
	log := func(password string) string {
		conn := dialTLS(t, d.address("submissions"), s.tlsConfig())
		defer conn.close()
		conn.say("EHLO client.test", "250 ")
		return conn.login("app@example.org", password)
	}
	if reply := log("wrong"); !strings.HasPrefix(reply, "535 5.7.8") {
		t.Errorf("a wrong password: %s", reply)
	}
	if n := strings.Count(s.read(file), "$scrypt$"); n != 2 {
		t.Errorf("a wrong password has changed the file:\n%s", s.read(file))
	}
	if reply := log("secret"); !strings.HasPrefix(reply, "235") {
		t.Fatalf("the old password: %s", reply)
	}
	app, other, _ := strings.Cut(s.read(file), "\n")
	hash, ok := strings.CutPrefix(app, "app:")
	if !ok || bcrypt.CompareHashAndPassword([]byte(hash), []byte("secret")) != nil || !strings.HasPrefix(other, "schön:$scrypt$") {
		t.Errorf("after the login:\n%s", s.read(file))
	}
	s.mustUtil("reload")
	if reply := log("secret"); !strings.HasPrefix(reply, "235") {
		t.Errorf("with the new hash: %s", reply)
	}
	s.mustUtil("authenticate", "app@example.org", "--password=secret")
}
