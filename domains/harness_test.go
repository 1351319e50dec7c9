package domains

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"relayd/address"
	"relayd/aliases"
	"relayd/dkim"
	"relayd/problem"
)

const userHash = "$2y$04$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// Keys take long to make.
var (
	pem1 = sync.OnceValue(func() string { return newKey("ed25519") })
	pem2 = sync.OnceValue(func() string { return newKey("ed25519") })
)

func newKey(algo string) string {
	text, err := dkim.Generate(algo)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// A host is a machine with hosted domains.
type host struct {
	*testing.T
	dir, good string
	log       bytes.Buffer
}

func newHost(t *testing.T) *host {
	dir := t.TempDir()
	h := &host{T: t, dir: filepath.Join(dir, "domains"), good: filepath.Join(dir, "state", "lastgood")}
	if err := os.Mkdir(h.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) open() *Store {
	return Open(Options{Dir: h.dir, GoodDir: h.good, Log: slog.New(slog.NewTextHandler(&h.log, nil))})
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

// write makes a file below the folder of the domains, as an editor does: in place.
func (h *host) write(name, text string) {
	h.Helper()
	if err := os.MkdirAll(filepath.Dir(h.path(name)), 0o755); err != nil {
		h.Fatal(err)
	}
	if err := os.WriteFile(h.path(name), []byte(text), 0o600); err != nil {
		h.Fatal(err)
	}
}

func (h *host) remove(name string) {
	h.Helper()
	if err := os.RemoveAll(h.path(name)); err != nil {
		h.Fatal(err)
	}
}

func (h *host) link(target, name string) {
	h.Helper()
	if err := os.Symlink(target, h.path(name)); err != nil {
		h.Fatal(err)
	}
}

// leads is where mail for an address goes, "451" when it has to wait, "550" when it cannot.
func leads(s *Store, addr string) string {
	a, err := address.Parse(addr)
	if err != nil {
		return err.Error()
	}
	set := s.Current()
	switch d := set.Get(a.Domain); {
	case d == nil:
		return "550"
	case d.Broken != nil:
		return "451"
	}
	res, err := aliases.Resolve(set, a)
	if err != nil {
		return "550"
	}
	var list []string
	for _, t := range res.Targets {
		list = append(list, t.String())
	}
	return strings.Join(list, " ")
}

func (h *host) wantLeads(s *Store, addr, want string) {
	h.Helper()
	if got := leads(s, addr); got != want {
		h.Errorf("%s leads to %s, want %s; problems: %v", addr, got, want, s.Problems())
	}
}

// wantProblems checks that there is exactly one problem for each of these pieces of text.
func (h *host) wantProblems(list problem.List, want ...string) {
	h.Helper()
	var lines []string
	for _, p := range list {
		lines = append(lines, strings.TrimPrefix(p.String(), h.dir+"/"))
	}
	for _, w := range want {
		i := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, w) })
		if i < 0 {
			h.Errorf("no problem has %q: %q", w, lines)
			continue
		}
		lines = slices.Delete(lines, i, i+1)
	}
	if len(lines) > 0 {
		h.Errorf("more problems than expected: %q", lines)
	}
}

func selectors(s *Store, domain string) string {
	var list []string
	for _, k := range s.Current().Get(domain).Keys {
		list = append(list, k.Selector)
	}
	return strings.Join(list, " ")
}
