package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"relayd/internal/testnet"
)

// names ZONE SETTINGS has a name server serve a file until the end of the script, and writes its
// address into the place of NAMESERVER in the settings.
func names(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		server := testnet.NewDNS(t, ts.ReadFile(args[0]))
		text := os.Expand(ts.ReadFile(args[1]), func(key string) string {
			if key == "NAMESERVER" {
				return server.Addr()
			}
			return ts.Getenv(key)
		})
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
	}
}
