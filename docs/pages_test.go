// Package docs_test keeps the pages in this folder true: those that are made from the sources are
// compared with them, and links are followed.
package docs_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write settings.md anew")

// pages are the names of all pages with what stands in them, and the project's README.
func pages(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	text := map[string]string{}
	for _, name := range append(names, "../README.md") {
		text[name] = read(t, name)
	}
	return text
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	notSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors are what links into a page may name: its headings as GitHub and others make them.
func anchors(text string) map[string]bool {
	set := map[string]bool{}
	for _, h := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		set[strings.ReplaceAll(notSlug.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-")] = true
	}
	return set
}

func TestLinksLeadSomewhere(t *testing.T) {
	text := pages(t)
	for name, page := range text {
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			file, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(file, "://") {
				continue
			}
			target := name
			if file != "" {
				target = filepath.Join(filepath.Dir(name), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", name, m[1])
			} else if anchor != "" && !anchors(text[target])[anchor] {
				t.Errorf("%s: %s has no heading #%s", name, target, anchor)
			}
		}
	}
}

func TestIndexNamesEveryPage(t *testing.T) {
	text := pages(t)
	for name := range text {
		if name != "README.md" && name != "../README.md" && !strings.Contains(text["README.md"], "("+name+")") {
			t.Errorf("README.md does not lead to %s", name)
		}
	}
	if !strings.Contains(text["../README.md"], "(docs/README.md)") {
		t.Error("the project's README does not lead to the pages")
	}
}
