package main

import (
	"relayd/control"
	"relayd/problem"
	"relayd/queue"
	"relayd/relay"
)

// Status is what the daemon says of itself.
func (d *daemon) Status() control.Status {
	s := control.Status{
		Version: version(), Hostname: d.conf.Hostname, Started: d.started,
		Problems: append(problem.List{}, d.domains.Problems()...),
		Warnings: append(problem.List{}, d.domains.Warnings()...),
	}
	problems, warnings := d.settings.state()
	s.Problems = append(append(s.Problems, problems...), d.certs.Problems()...)
	s.Warnings = append(s.Warnings, warnings...)
	s.Warnings = append(s.Warnings, relay.CheckPostmaster(d.conf, d.domains.Current())...)
	for _, l := range d.listeners {
		s.Listeners = append(s.Listeners, control.Listener{Service: l.service.name, Address: l.Addr().String()})
	}
	for _, srv := range d.servers {
		s.Connections += srv.Connections()
	}
	for _, dom := range d.domains.Current().All() {
		ds := control.DomainStatus{Name: dom.Name, Keys: len(dom.Keys), Broken: dom.Broken != nil}
		if dom.Broken == nil {
			ds.Users, ds.Aliases = len(dom.Users.All()), len(dom.Aliases.Rules())
		}
		s.Domains = append(s.Domains, ds)
	}
	for _, c := range d.certs.List() {
		s.Certs = append(s.Certs, control.Certificate{Names: c.Names, Expires: c.NotAfter, File: c.File, SelfSigned: c.SelfSigned})
	}
	d.queue.List(func(e *queue.Envelope) bool {
		if s.Queue.Messages == 0 {
			s.Queue.Oldest = e.Received
		}
		s.Queue.Messages++
		for _, r := range e.Recipients {
			if r.State == queue.Held {
				s.Queue.Held++
				break
			}
		}
		return true
	})
	return s
}
