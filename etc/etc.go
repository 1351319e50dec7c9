// Package etc holds the files that relayd is installed with, as they stand here.
package etc

import _ "embed"

// Settings is relayd.toml with every key explained and only the hostname set, to a name that is an
// example.
//
//go:embed relayd.toml
var Settings string

// Unit is the systemd unit for /usr/local/bin/relayd.
//
//go:embed relayd.service
var Unit string
