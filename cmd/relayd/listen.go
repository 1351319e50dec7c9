package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"

	"relayd/config"
	"relayd/proxied"
)

// A service is one kind of port.
type service struct {
	index       int // of its server
	name        string
	submission  bool
	implicitTLS bool
}

var services = []service{
	{index: 0, name: "smtp"},
	{index: 1, name: "submission", submission: true},
	{index: 2, name: "submissions", submission: true, implicitTLS: true},
}

// The ports that are not spoken SMTP on.
var (
	metricsService = service{index: -1, name: "metrics"}
	httpService    = service{index: -1, name: "http"}
	httpsService   = service{index: -1, name: "https", implicitTLS: true}
)

type listener struct {
	net.Listener
	service service
}

// behindProxies has the servers see the clients behind proxies of these networks.
func behindProxies(list []listener, networks []string, log *slog.Logger) {
	if len(networks) == 0 {
		return
	}
	var from []netip.Prefix
	for _, n := range networks {
		from = append(from, netip.MustParsePrefix(n)) // config has checked it
	}
	for i, l := range list {
		if l.service.index >= 0 {
			list[i].Listener = proxied.Listen(l.Listener, from, log)
		}
	}
}

// listenAll opens every address, or none.
func listenAll(conf config.Listen) ([]listener, error) {
	inherited, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("taking sockets from systemd: %w", err)
	}
	var all []listener
	kinds := append(services[:len(services):len(services)], metricsService, httpService, httpsService)
	for i, addresses := range [][]string{conf.SMTP, conf.Submission, conf.Submissions, conf.Metrics, conf.HTTP, conf.HTTPS} {
		for _, addr := range addresses {
			opened, err := listen(addr, inherited)
			if err != nil {
				closeAll(all)
				return nil, err
			}
			for _, l := range opened {
				all = append(all, listener{l, kinds[i]})
			}
		}
	}
	return all, nil
}

func listen(addr string, inherited map[string][]net.Listener) ([]net.Listener, error) {
	if name, ok := strings.CutPrefix(addr, "systemd:"); ok {
		if len(inherited[name]) == 0 {
			return nil, fmt.Errorf("systemd handed over no socket named %q: start its .socket unit, and see that FileDescriptorName=%s is in it", name, name)
		}
		return inherited[name], nil
	}
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: ports below 1024 are for root; start relayd by its systemd unit, or allow it with CAP_NET_BIND_SERVICE", err)
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%w: another program is there (`ss -ltnp` shows which); is another mail server running?", err)
	case err != nil:
		return nil, err
	}
	return []net.Listener{l}, nil
}

func closeAll(list []listener) {
	for _, l := range list {
		l.Close()
	}
}

// mxAddresses are those on which mail from the world is taken.
func mxAddresses(list []listener) []net.Addr {
	var addrs []net.Addr
	for _, l := range list {
		if l.service.index == 0 {
			addrs = append(addrs, l.Addr())
		}
	}
	return addrs
}
