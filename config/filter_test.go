package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestFilters(t *testing.T) {
	file := filepath.Join(t.TempDir(), "relayd.toml")
	write(t, file, host+`[filter]
dnsbl = ["Zen.Spamhaus.Org.", "b.barracudacentral.org"]
rspamd = "http://127.0.0.1:11333/"
password_file = "pw"
milter = ["inet:localhost:8891", "inet:[::1]:8892", "unix:/run/x.sock"]
`)
	write(t, filepath.Join(filepath.Dir(file), "pw"), "hunter2\n")
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	f := c.Filter
	if !slices.Equal(f.DNSBL, []string{"zen.spamhaus.org", "b.barracudacentral.org"}) || f.Rspamd != (Rspamd{"http://127.0.0.1:11333", "hunter2"}) ||
		!slices.Equal(f.Milter, []string{"inet:localhost:8891", "inet:[::1]:8892", "unix:/run/x.sock"}) {
		t.Errorf("%+v", f)
	}
	for _, format := range []string{"%v", "%+v", "%#v"} {
		if text := fmt.Sprintf(format, *c); strings.Contains(text, "hunter2") {
			t.Errorf("%s prints the password: %s", format, text)
		}
	}
	if c := mustParse(t, host+"[filter]\nrspamd = \"unix:/run/rspamd/normal.sock\"\n"); c.Filter.Rspamd.URL != "unix:/run/rspamd/normal.sock" {
		t.Errorf("%+v", c.Filter)
	}
	if c := mustParse(t, host+"[filter]\nrspamd = \"https://[2001:db8::1]:11333\"\n"); c.Filter.Rspamd.URL != "https://[2001:db8::1]:11333" {
		t.Errorf("%+v", c.Filter)
	}
}
