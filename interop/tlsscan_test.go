//go:build interop

package interop

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"relayd/internal/sink"
	"relayd/internal/testnet"
)

// starttls are the arguments that have a scanner of TLS speak SMTP first where it must.
func starttls(service string, args ...string) []string {
	if service == "submissions" {
		return nil
	}
	return args
}

// ofTheTest are the findings over LOW that may stand: they are about the test and nothing that relayd does.
var ofTheTest = map[string]string{
	"engine_problem":        "Debian's openssl has no ciphers of GOST to try",
	"cert_expirationStatus": "its certificate is valid for a day",
	"cert_notAfter":         "the same",
	"cert_revocation":       "an authority that exists for one test publishes no revocations",
}

// A scannedPort is a listener with TLS, and a certificate of one kind.
type scannedPort struct {
	*site
	*daemon
	service, kind string // kind is "ECDSA" or "RSA"
}

// scan runs f for every listener with every kind of certificate, all at once.
func scan(t *testing.T, f func(t *testing.T, p scannedPort)) {
	for kind, certificate := range map[string]func(testing.TB, ...string) testnet.Certificate{"ECDSA": testnet.Cert, "RSA": testnet.RSACert} {
		s, _ := newWorld(t, sink.Options{}, "")
		s.certify(certificate(t, hostname, "127.0.0.1"))
		d := s.start()
		for _, service := range []string{"smtp", "submission", "submissions"} {
			t.Run(kind+" "+service, func(t *testing.T) {
				t.Parallel()
				f(t, scannedPort{s, d, service, kind})
			})
		}
	}
}

// testssl looks for every protocol, every class of ciphers, and every weakness of a TLS server that has a name.
func TestTestsslFindsNothing(t *testing.T) {
	scan(t, func(t *testing.T, p scannedPort) {
		report := p.path(p.service + ".json")
		// All it has but for the lists that judge nothing: of single ciphers, and of what simulated clients choose.
		args := []string{"--protocols", "--std", "--fs", "--server-preference", "--server-defaults", "--vulnerable", "--grease",
			"--quiet", "--warnings", "batch", "--color", "0", "--nodns", "none", "--ip", "127.0.0.1", "--add-ca", p.path("ca.pem"), "--jsonfile", report}
		args = append(append(args, starttls(p.service, "--starttls", "smtp")...), hostname+":"+p.port(p.service))
		out, err := exec.Command(peer(t, "testssl"), args...).CombinedOutput()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || exit != nil && exit.ExitCode() >= 50 {
			t.Fatalf("%v\n%s", err, out) // below that it counts what it was not sure of
		}
		var findings []struct{ ID, Severity, Finding, CVE string }
		if err := json.Unmarshal(readFile(t, report), &findings); err != nil {
			t.Fatalf("its report: %v\n%s", err, out)
		}
		seen := map[string]int{}
		for _, f := range findings {
			seen[f.Severity]++
			switch f.Severity {
			case "OK", "INFO", "LOW", "DEBUG":
			default:
				if ofTheTest[f.ID] == "" {
					t.Errorf("%s %s: %s %s", f.Severity, f.ID, f.Finding, f.CVE)
				}
			}
		}
		t.Logf("findings: %v", seen)
		if seen["OK"] < 30 {
			t.Errorf("it found little to be right:\n%s", out)
		}
	})
}

// A scannedServer is what sslscan found.
type scannedServer struct {
	Protocols []struct {
		Type    string `xml:"type,attr"`
		Version string `xml:"version,attr"`
		Enabled bool   `xml:"enabled,attr"`
	} `xml:"ssltest>protocol"`
	Heartbleed []struct {
		Vulnerable bool `xml:"vulnerable,attr"`
	} `xml:"ssltest>heartbleed"`
	Ciphers []struct {
		Name     string `xml:"cipher,attr"`
		Strength string `xml:"strength,attr"`
	} `xml:"ssltest>cipher"`
}

func TestSslscanFindsNoOldTLS(t *testing.T) {
	scan(t, func(t *testing.T, p scannedPort) {
		args := append(starttls(p.service, "--starttls-smtp"), "--xml=-", "--sni-name="+hostname, p.address(p.service))
		out := mustRun(t, exec.Command(peer(t, "sslscan"), args...))
		var found scannedServer
		if err := xml.Unmarshal([]byte(out), &found); err != nil {
			t.Fatalf("its report: %v\n%s", err, out)
		}
		enabled := ""
		for _, p := range found.Protocols {
			if p.Enabled {
				enabled += " " + p.Type + p.Version
			}
		}
		if enabled != " tls1.2 tls1.3" {
			t.Errorf("the protocols are%s", enabled)
		}
		if !strings.Contains(out, "ECDHE-"+p.kind+"-") {
			t.Errorf("no cipher is one for an %s certificate:\n%s", p.kind, out)
		}
		for _, c := range found.Ciphers {
			if c.Strength != "acceptable" && c.Strength != "strong" {
				t.Errorf("%s is %s", c.Name, c.Strength)
			}
		}
		for _, h := range found.Heartbleed {
			if h.Vulnerable {
				t.Error("heartbleed")
			}
		}
		if len(found.Ciphers) < 3 || len(found.Heartbleed) == 0 {
			t.Errorf("it tried little:\n%s", out)
		}
	})
}
