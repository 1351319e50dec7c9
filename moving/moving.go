// Package moving reads what another mail server keeps, says what of it can live here, and moves that
// in: the configuration folder of chasquid, and Postfix's tables of virtual aliases (virtual(5)).
//
// What is read is a Plan: the domains, certificates and settings as files of ours, and a list of
// what could not come along, with the reasons. Nothing is left out silently. MoveIn alone changes
// something: it takes over a plan whole or not at all, and nothing that is here already.
package moving

import (
	"errors"
	"fmt"
	"io"
	"os"

	"relayd/aliases"
	"relayd/problem"
)

// A Plan is what is to be moved in.
type Plan struct {
	Domains []Domain // by name
	Certs   []Cert   // by name
	// Settings of relayd.toml; zero where the other server has none.
	Hostname      string
	MessageSizeMB int
	Left          problem.List // what stays behind, by file and line, and why
}

// A Domain is one hosted domain.
type Domain struct {
	Name     string            // A-labels, lower case
	Users    []byte            // a users file
	Count    int               // of users
	Old      int               // how many of them have a hash by scrypt
	Aliases  []byte            // an aliases file, for a domain that is not here yet
	Source   string            // the file that Aliases come from, line by line; "" if they have other lines
	Rules    []aliases.Rule    // to be added to what is there, instead of Aliases
	Keys     map[string][]byte // DKIM keys, PEM, by selector
	Settings []byte            // a domain.toml; nil for none
}

// A Cert is a certificate.
type Cert struct {
	Name       string // of its folder
	Chain, Key []byte // fullchain.pem and privkey.pem
}

// leave notes what stays behind.
func (p *Plan) leave(file string, line int, format string, args ...any) {
	p.Left = append(p.Left, problem.At(file, line, format, args...))
}

// maxFile bounds what is read of one file, in bytes.
const maxFile = 16 << 20

// readFile reads a whole file.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no regular file", name))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d MiB", name, maxFile>>20)
	}
	return data, err
}
