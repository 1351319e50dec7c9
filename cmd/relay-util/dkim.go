package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayd/dkim"
	"relayd/dns"
	"relayd/domains"
	"relayd/problem"
)

func (t *tool) dkimVerbs() []*cobra.Command {
	return []*cobra.Command{t.dkimKeygen(), t.dkimDNS(), t.dkimVerify()}
}

func (t *tool) dkimKeygen() *cobra.Command {
	c := &cobra.Command{
		Use:     "dkim-keygen DOMAIN",
		Short:   "Make a DKIM key, which signs from then on, and print the record to publish for it.",
		Example: "relay-util dkim-keygen example.org --selector relay2",
	}
	var spec domains.KeySpec
	c.Flags().StringVar(&spec.Selector, "selector", domains.DefaultSelector, "the `NAME` of the key in DNS")
	c.Flags().StringVar(&spec.Algo, "algo", domains.DefaultAlgo, "rsa2048, which every receiver checks, or ed25519, best beside one")
	c.PreRunE = func(*cobra.Command, []string) error {
		if spec.Algo != "rsa2048" && spec.Algo != "ed25519" {
			return fmt.Errorf("--algo is rsa2048 or ed25519, not %q", spec.Algo)
		}
		return nil
	}
	return t.verb(c, between(1, 1), func(_ context.Context, args []string) error {
		p, err := t.place()
		if err != nil {
			return err
		}
		name, err := p.hosted(args[0])
		if err != nil {
			return err
		}
		key, err := domains.MakeKey(p.folders[name], name, spec)
		if err != nil {
			return err
		}
		t.nudge(p, p.file(name, "dkim"))
		return t.printRecords([]*dkim.Key{key})
	})
}

func (t *tool) dkimDNS() *cobra.Command {
	c := &cobra.Command{
		Use:     "dkim-dns DOMAIN",
		Short:   "Print the records to publish for the DKIM keys of a domain, one line each for its zone.",
		Example: "relay-util dkim-dns example.org",
	}
	return t.verb(c, between(1, 1), func(_ context.Context, args []string) error {
		w, err := t.world()
		if err != nil {
			return err
		}
		name, err := w.hosted(args[0])
		if err != nil {
			return err
		}
		d := w.Get(name)
		var unusable problem.List
		for _, p := range d.Broken {
			if filepath.Base(filepath.Dir(p.File)) == "dkim" {
				unusable = append(unusable, p)
			}
		}
		if len(d.Keys) == 0 && len(unusable) == 0 {
			if t.json {
				if err := t.printRecords(nil); err != nil {
					return err
				}
			}
			return fmt.Errorf("%s has no DKIM key; make one with `relay-util dkim-keygen %[1]s`", name)
		}
		if err := t.printRecords(d.Keys); err != nil {
			return err
		}
		return unusable.Err()
	})
}

func (t *tool) printRecords(keys []*dkim.Key) error {
	records := []dkim.Record{}
	for _, k := range keys {
		records = append(records, k.Record())
	}
	if t.json {
		return t.printJSON(records)
	}
	for _, r := range records {
		t.say("%s", r.Zone())
	}
	return nil
}

func (t *tool) dkimVerify() *cobra.Command {
	c := &cobra.Command{
		Use:   "dkim-verify [MESSAGE]",
		Short: "Check the DKIM signatures of a message in a file or from standard input.",
		Long: "Check the DKIM signatures of a message in a file or from standard input.\n" +
			"Exits with 0 if one at least passes and none fails; one whose key is unusable or cannot be had is no failure.",
		Example: "relay-util dkim-verify <message.eml",
	}
	return t.verb(c, between(0, 1), func(ctx context.Context, args []string) error {
		servers, err := t.dnsServers()
		if err != nil {
			return err
		}
		message, err := t.message(args)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		resolver := dns.New(dns.Options{Servers: servers})
		results, err := dkim.Verify(ctx, bytes.NewReader(message), func(ctx context.Context, name string) ([]string, error) {
			records, err := resolver.TXT(ctx, name)
			if errors.Is(err, dns.ErrNotExist) || errors.Is(err, dns.ErrNoData) {
				return nil, nil
			}
			return records, err
		})
		if err != nil {
			return err
		}
		return t.printSignatures(results)
	})
}

// dnsServers are those of the settings; none, which stands for the system's, without settings.
func (t *tool) dnsServers() ([]string, error) {
	p, err := t.place()
	if errors.Is(err, errNoSettings) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return p.DNS.Servers, nil
}

// message reads a message and gives every line the end that it has in transport.
func (t *tool) message(args []string) ([]byte, error) {
	read := func() ([]byte, error) { return io.ReadAll(t.in) }
	if len(args) > 0 {
		read = func() ([]byte, error) { return os.ReadFile(args[0]) }
	}
	text, err := read()
	if err != nil {
		return nil, fmt.Errorf("reading the message: %w", err)
	}
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), nil
}

// A signature is a result as `dkim-verify --json` prints it.
type signature struct {
	Result    dkim.Kind `json:"result"`
	Domain    string    `json:"domain"`
	Selector  string    `json:"selector"`
	Algorithm string    `json:"algorithm"`
	Reason    string    `json:"reason,omitempty"`
}

func (t *tool) printSignatures(results []dkim.Result) error {
	list := []signature{}
	passed, failed := false, false
	for _, r := range results {
		s := signature{r.Kind, r.Domain, r.Selector, r.Algorithm, ""}
		if r.Err != nil {
			s.Reason = r.Err.Error()
		}
		list = append(list, s)
		passed = passed || r.Kind == dkim.Pass
		failed = failed || r.Kind == dkim.Fail
	}
	if t.json {
		if err := t.printJSON(list); err != nil {
			return err
		}
	} else {
		for _, s := range list {
			t.say("%s", plain(strings.TrimSuffix(fmt.Sprintf("%s: d=%s s=%s a=%s: %s", s.Result, s.Domain, s.Selector, s.Algorithm, s.Reason), ": ")))
		}
	}
	switch {
	case len(list) == 0:
		return errors.New("the message has no DKIM signature")
	case failed || !passed:
		return errNo
	}
	return nil
}
