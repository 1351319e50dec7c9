//go:build interop

package interop

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"relayd/address"
	"relayd/internal/testnet"
	"relayd/srs"
)

// A table is one that postsrsd answers by Postfix's protocol for such (tcp_table(5)).
type table struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

// openTable dials a table that may not have come up yet.
func openTable(t testing.TB, port int) *table {
	t.Helper()
	var conn net.Conn
	waitFor(t, "postsrsd listens", patience, func() (ok bool) {
		var err error
		conn, err = net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		return err == nil
	})
	t.Cleanup(func() { conn.Close() })
	return &table{t, conn, bufio.NewReader(conn)}
}

// get looks an address up; ok is false if the table does not have it.
func (s *table) get(a address.Address) (value string, ok bool) {
	s.t.Helper()
	fmt.Fprintf(s.conn, "get %s\n", strings.ReplaceAll(a.String(), "%", "%25"))
	s.conn.SetReadDeadline(time.Now().Add(patience))
	line, err := s.in.ReadString('\n')
	if err != nil {
		s.t.Fatalf("asking postsrsd for %s: %v", a, err)
	}
	code, value, _ := strings.Cut(strings.TrimSpace(line), " ")
	if value, err = url.PathUnescape(value); err != nil {
		s.t.Fatalf("postsrsd answers %q for %s: %v", line, a, err)
	}
	return value, code == "200"
}

// startPostsrsd runs postsrsd with a secret for addresses in a domain.
func startPostsrsd(t testing.TB, domain, secret string) (forward, reverse *table) {
	t.Helper()
	ports := []int{testnet.LocalPort(t), testnet.LocalPort(t)}
	secrets := filepath.Join(t.TempDir(), "secrets")
	if err := os.WriteFile(secrets, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(peer(t, "postsrsd"), "-4", "-l127.0.0.1", "-s"+secrets, "-d"+domain, "-n8", "-N8",
		fmt.Sprintf("-f%d", ports[0]), fmt.Sprintf("-r%d", ports[1]))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return openTable(t, ports[0]), openTable(t, ports[1])
}

// drawSender makes a sender that fits into an address when rewritten: an ordinary one, or one that other
// forwarders have rewritten.
func drawSender(t testing.TB, r *rand.Rand, n int) address.Address {
	t.Helper()
	word := func(letters string, from, to int) string {
		b := make([]byte, from+r.IntN(to-from+1))
		for i := range b {
			b[i] = letters[r.IntN(len(letters))]
		}
		return string(b)
	}
	const small, all = "abcdefghijklmnopqrstuvwxyz0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	domain := word(small, 1, 10) + "." + word("abcdefghij", 2, 4)
	local := word(all, 1, 1) + word(all+"!#$&'*+-/=?^_`{|}~%", 0, 11)
	switch n % 4 {
	case 2:
		local = "SRS0" + word("=+-", 1, 1) + word(all+"+/", 4, 4) + "=" + word("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 2, 2) + "=o.test=" + word(all, 1, 6)
	case 3:
		local = "SRS1=" + word(all+"+/", 8, 8) + "=hop.test=" + word("=+-", 1, 1) + word(all, 4, 4) + "=AB=o.test=" + word(all, 1, 6)
	}
	a, err := address.Parse(local + "@" + domain)
	if err != nil {
		t.Fatalf("%s@%s: %v", local, domain, err)
	}
	return a
}

// TestPostsrsd: it and room srs rewrite alike, and each turns back what the other has rewritten.
func TestPostsrsd(t *testing.T) {
	const domain, secret, addresses = "relay.test", "one secret of both", 1000
	forward, reverse := startPostsrsd(t, domain, secret)
	ours, err := srs.New(srs.Options{Secrets: [][]byte{[]byte(secret)}})
	if err != nil {
		t.Fatal(err)
	}
	// The one difference is the alphabet of the hash. We read both; postsrsd reads its own.
	hash := regexp.MustCompile(`^SRS[01]=.{8}`)
	theirWay := func(a address.Address) address.Address {
		a.Local = hash.ReplaceAllStringFunc(a.Local, strings.NewReplacer("-", "+", "_", "/").Replace)
		return a
	}
	const seed = 7
	r := rand.New(rand.NewPCG(seed, seed))
	for n := range addresses {
		sender := drawSender(t, r, n)
		mine, err := ours.Forward(sender, domain, time.Now())
		if err != nil {
			t.Fatalf("%s: %v", sender, err)
		}
		theirs, ok := forward.get(sender)
		if again, _ := ours.Forward(sender, domain, time.Now()); !ok || theirs != theirWay(mine).String() && theirs != theirWay(again).String() {
			t.Fatalf("%s is rewritten to %s by us and to %s by postsrsd", sender, mine, theirs)
		}
		parsed, err := address.Parse(theirs)
		if err != nil {
			t.Fatalf("%s: %v", theirs, err)
		}
		back, err := ours.Reverse(parsed, time.Now())
		if err != nil {
			t.Fatalf("postsrsd's %s: %v", theirs, err)
		}
		if n%4 < 2 && back != sender {
			t.Fatalf("postsrsd's %s leads to %s, not %s", theirs, back, sender)
		}
		if got, ok := reverse.get(theirWay(mine)); !ok || got != back.String() {
			t.Fatalf("postsrsd takes our %s back to %q, not %s", mine, got, back)
		}
		forged := mine
		forged.Local += "x"
		if _, err := ours.Reverse(forged, time.Now()); err == nil {
			t.Errorf("we take %s", forged)
		}
		if got, ok := reverse.get(theirWay(forged)); ok {
			t.Errorf("postsrsd takes %s back to %s", forged, got)
		}
	}
}
