package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// writeFiles makes a folder with a relayd.toml and other files, and returns the name of the first.
func writeFiles(t *testing.T, toml string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files["relayd.toml"] = toml
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "relayd.toml")
}

func TestSecretsOfTheDNSProviderMayStandInFiles(t *testing.T) {
	file := writeFiles(t, host+"[acme]\nenabled = true\nchallenge = \"dns-01\"\nprovider = \"cloudflare\"\nnames = [\"*.Example.com\"]\n"+
		"[acme.dns]\ntoken_file = \"token\"\nwait = \"1m\"\n", map[string]string{"token": "hunter2\n"})
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.ACME.DNS) != 2 || c.ACME.DNS["token"] != "hunter2" || c.ACME.DNS["wait"] != "1m" || c.ACME.Names[0] != "*.example.com" {
		t.Errorf("%+v", c.ACME)
	}
	if files := c.SecretFiles(); !slices.Equal(files, []string{filepath.Join(c.Dir(), "token")}) || !c.HoldsSecrets() {
		t.Errorf("%q %v", files, c.HoldsSecrets())
	}
}

func TestSecretFilesAreAllThatTheSettingsName(t *testing.T) {
	file := writeFiles(t, host+"[filter]\nrspamd = \"http://127.0.0.1:1\"\npassword_file = \"b\"\n"+
		"[outbound]\nsmarthost = \"submission://me@a.example\"\npassword_file = \"a\"\n"+
		"[outbound.to.\"b.example\"]\nsmarthost = \"submission://me@b.example\"\npassword_file = \"b\"\n"+
		"[outbound.from.\"c.example\"]\nsmarthost = \"submission://me@c.example\"\npassword_file = \"c\"\n"+
		"[acme.dns]\ntoken_file = \"d\"\n", map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"})
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, name := range []string{"a", "b", "c", "d"} {
		want = append(want, filepath.Join(c.Dir(), name))
	}
	if got := c.SecretFiles(); !slices.Equal(got, want) || c.HoldsSecrets() {
		t.Errorf("%q %v", got, c.HoldsSecrets())
	}
}

func TestSecretsThatCannotBeRead(t *testing.T) {
	for table, want := range map[string]string{
		"token_file = \"none\"":                 ":3: acme.dns.token_file: ",
		"token_file = \"empty\"":                "is empty: write the secret into it",
		"token = \"x\"\ntoken_file = \"token\"": ":4: acme.dns.token_file: token stands in this table as well: keep one of the two",
		"token_file = \"two\"":                  "has more than one line",
	} {
		file := writeFiles(t, host+"[acme.dns]\n"+table+"\n", map[string]string{"token": "hunter2", "empty": "\n", "two": "hunter2\nhunter2\n"})
		_, err := Load(file)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", table, err)
		}
	}
}

func TestGoodACME(t *testing.T) {
	for _, text := range []string{
		"[acme]\nenabled = true\nwebroot = \"/var/www/html/\"\n",
		"[listen]\nhttp = [\":80\"]\n[acme]\nenabled = true\nnames = [\"a.example\", \"b.example\"]\n",
		"[listen]\nhttps = [\":443\"]\n[acme]\nenabled = true\nchallenge = \"tls-alpn-01\"\n",
		"[acme]\nchallenge = \"dns-01\"\n",
	} {
		if _, err := Parse("f", []byte(host+text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}
