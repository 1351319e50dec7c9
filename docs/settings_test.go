package docs_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"relayd/config"
)

const settingsHead = `# Every setting

This page is made from ` + "`etc/relayd.toml` and `etc/domain.toml`" + `, which come with relayd, by ` + "`go test ./docs -update`" + `:
change it there. Every setting has a default; only ` + "`hostname`" + ` must be set.

`

// TestSettingsAreThoseOfTheExamples compares settings.md with the examples it is made from.
func TestSettingsAreThoseOfTheExamples(t *testing.T) {
	want := settingsHead + settingsOf("/etc/relayd/relayd.toml", read(t, "../etc/relayd.toml")) +
		"\n" + settingsOf("/etc/relayd/domains/DOMAIN/domain.toml", read(t, "../etc/domain.toml"))
	if *update {
		if err := os.WriteFile("settings.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, "settings.md") != want {
		t.Error("settings.md is not as etc/relayd.toml and etc/domain.toml are: go test ./docs -update")
	}
}

var tomlBlock = regexp.MustCompile("(?ms)^ *```toml\n(.*?)^ *```$")

// TestSettingsInPagesAreRight parses what pages show of relayd.toml and domain.toml.
func TestSettingsInPagesAreRight(t *testing.T) {
	found := 0
	for name, page := range pages(t) {
		for _, block := range tomlBlock.FindAllStringSubmatch(page, -1) {
			found++
			_, err := config.Parse(name, []byte("hostname = \"mx.example.com\"\n"+block[1]))
			if _, ofDomain := config.ParseDomain(name, []byte(block[1])); err != nil && ofDomain != nil {
				t.Errorf("%s:\n%s\nis no relayd.toml: %v\nand no domain.toml: %v", name, block[1], err, ofDomain)
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d blocks of settings were found", found)
	}
}

var settingLine = regexp.MustCompile(`^#?([a-z0-9_]+) = (.*)$`)

// settingsOf makes a chapter of an example: tables become headings, keys and what is said of them
// paragraphs.
func settingsOf(file, example string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "## %s\n", file)
	var said []string
	paragraph := func() {
		if len(said) > 0 {
			fmt.Fprintf(&out, "\n%s\n", plain(strings.Join(said, "\n")))
		}
		said = nil
	}
	for line := range strings.SplitSeq(example, "\n") {
		key := settingLine.FindStringSubmatch(line)
		switch {
		case strings.HasPrefix(line, "["):
			fmt.Fprintf(&out, "\n### %s\n", line)
			paragraph()
		case key != nil:
			fmt.Fprintf(&out, "\n**`%s = %s`**\\\n%s\n", key[1], key[2], plain(strings.Join(said, "\n")))
			said = nil
		case line == "":
			paragraph()
		default:
			said = append(said, strings.TrimPrefix(strings.TrimPrefix(line, "#"), " "))
		}
	}
	paragraph()
	return out.String()
}

// plain keeps what is said from being taken for Markdown.
func plain(text string) string {
	return strings.NewReplacer("*", `\*`, "_", `\_`, "<", `\<`, "|", `\|`, "[", `\[`, "]", `\]`).Replace(text)
}
