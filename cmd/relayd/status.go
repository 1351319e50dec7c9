package main

import (
	"context"
	"maps"
	"slices"
	"time"

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
	problems, warnings := d.settings.State()
	s.Problems = append(append(s.Problems, problems...), d.certs.Problems()...)
	s.Warnings = append(s.Warnings, warnings...)
	s.Warnings = append(s.Warnings, relay.CheckPostmaster(d.conf, d.domains.Current())...)
	s.Warnings = append(s.Warnings, relay.CheckSRSDomain(d.conf, d.domains.Current())...)
	s.Warnings = append(s.Warnings, checkLogins(d.conf, d.certs)...)
	s.Warnings = append(s.Warnings, d.rights.List()...)
	s.Warnings = append(s.Warnings, checkSendmail(d.conf, d.domains.Current())...)
	s.Warnings = append(s.Warnings, d.outbound.warnings(d.conf)...)
	for _, w := range d.filter.Warnings() {
		s.Warnings = append(s.Warnings, problem.At(d.conf.File(), 0, "%s", w))
	}
	counts := d.filter.Counts()
	s.Filters = control.Filters{Uses: d.filter.Uses(), DNSBL: counts.DNSBL, Rspamd: counts.Rspamd, Milter: counts.Milter, Suspect: counts.Suspect}
	for _, l := range d.listeners {
		s.Listeners = append(s.Listeners, control.Listener{Service: l.service.name, Address: l.Addr().String()})
	}
	s.Connections, s.IPv6 = d.connections(), d.outbound.ipv6(d.conf)
	for _, dom := range d.domains.Current().All() {
		ds := control.DomainStatus{Name: dom.Name, Keys: len(dom.Keys), Broken: dom.Broken != nil, Stale: dom.Stale}
		if dom.Broken == nil {
			ds.Users, ds.Aliases = len(dom.Users.All()), len(dom.Aliases.Rules())
		}
		s.Domains = append(s.Domains, ds)
	}
	for _, c := range d.certs.List() {
		s.Certs = append(s.Certs, control.Certificate{Names: c.Names, Expires: c.NotAfter, File: c.File, SelfSigned: c.SelfSigned})
	}
	s.ACME = d.acmeStatus()
	s.Queue, s.Health = d.queueStatus()
	return s
}

// queueStatus is quick however long the queue is.
func (d *daemon) queueStatus() (control.QueueStatus, control.Health) {
	st, health := d.store.Stats(), d.store.Health()
	h := control.Health{Damaged: health.Damaged}
	if health.Failure != nil {
		h.Failure = health.Failure.Error()
	}
	return control.QueueStatus{
		Messages: st.Messages, Held: st.Held, Bytes: st.Bytes, Oldest: st.Oldest, Attempts: control.Attempts(d.queue.Counts()),
		Log: control.LogStatus{Segments: st.Segments, Syncs: st.Syncs, Commits: st.Commits, SyncSeconds: st.SyncTime.Seconds()},
	}, h
}

// CheckQueue verifies all that is in the queue.
func (d *daemon) CheckQueue(ctx context.Context, progress func(done, total int64)) (*queue.Report, error) {
	return d.store.Check(ctx, progress)
}

// Destinations implements control.Daemon.
func (d *daemon) Destinations() []control.Destination {
	all := map[string]control.Destination{}
	for name, n := range d.store.Waiting() {
		all[name] = control.Destination{Waiting: n}
	}
	for _, g := range d.queue.Groups() {
		one := all[g.Name]
		one.Used, one.Window, one.Paused = g.Used, g.Window, g.Paused
		all[g.Name] = one
	}
	for name, said := range d.outbound.relay.LastReplies() {
		one := all[name]
		one.LastReply, one.LastAt = said.Reply, said.At
		all[name] = one
	}
	for name, refusal := range d.outbound.client.IPv6Refusals() {
		one := all[name]
		one.Note = "no IPv6 until " + refusal.Until.UTC().Format(time.RFC3339)
		all[name] = one
	}
	list := make([]control.Destination, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		one := all[name]
		one.Name = name
		list = append(list, one)
	}
	return list
}
