// Package interop runs the built programs, relayd and relay-util, against programs that nobody
// here wrote: mail clients, Postfix, DKIM verifiers, OpenSSL, systemd, name servers, all from
// Debian. Nothing leaves this machine: everything listens on 127.0.0.1 or in network namespaces
// that the tests make and take away again.
//
// The tests stand behind the build tag interop, need root for the namespaces, and fail where a
// program is absent. `./check` installs what is missing and runs them; RELAYD_FULL=1, which
// `./check --full` sets, makes the long ones long.
package interop
