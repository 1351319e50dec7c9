// Package metrics tells Prometheus how the relay fares, in its text format over HTTP. All names
// begin with relayd_. Nothing in it says who writes to whom: groups are servers that mail goes to.
package metrics

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"relayd/filter"
	"relayd/queue"
)

// Sources are asked at each scrape. All are required.
type Sources struct {
	Store       func() queue.Stats
	Healthy     func() bool           // no sync has failed, and no damage waits to be looked at
	Waiting     func() map[string]int // recipients by group
	Counts      func() queue.Counts
	Groups      func() []queue.GroupStatus
	Connections func() int // of clients, now
	Filtered    func() filter.Counts
	// Certificates are those in force.
	Certificates func() []Certificate
	Now          func() time.Time
}

// A Certificate is one that the server shows.
type Certificate struct {
	Name    string // the first that it is for
	File    string // "" for one that was made in memory
	Expires time.Time
}

// Metrics are the relay's figures. They are safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	accept   prometheus.Histogram
}

// New makes metrics that read from src.
func New(src Sources) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		accept: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "relayd_accept_seconds",
			Help:    "Time from the last octet of a message to the answer that it is taken.",
			Buckets: []float64{0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 25},
		}),
	}
	m.registry.MustRegister(m.accept, &collector{src},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Accepted notes how long it took to answer for a message, from its last octet.
func (m *Metrics) Accepted(took time.Duration) { m.accept.Observe(took.Seconds()) }

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// maxGroups bounds the groups that are told of: those with the most recipients waiting. A label for
// each of a hundred thousand domains would be more than Prometheus bears.
const maxGroups = 50

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("relayd_"+name, help, labels, nil)
}

var (
	messages    = describe("queue_messages", "Messages in the queue.")
	healthy     = describe("queue_healthy", "1, or 0 after a failed sync, when no mail is taken, and after damage that relay-util queue-check has not looked at.")
	held        = describe("queue_held_messages", "Messages in the queue with a recipient that is held.")
	size        = describe("queue_bytes", "Bytes of the bodies in the queue.")
	oldest      = describe("queue_oldest_seconds", "Age of the oldest message in the queue.")
	segments    = describe("queue_segments", "Files of the queue's journal.")
	waiting     = describe("queue_waiting_recipients", "Recipients that wait, by the group of servers that they go to; the largest groups only.", "group")
	slots       = describe("queue_group_slots", "Attempts at once that a group may have, as learned.", "group")
	used        = describe("queue_group_attempts", "Attempts in a group, now.", "group")
	attempts    = describe("attempts_total", "What attempts came to, by recipient.", "result")
	running     = describe("attempts_running", "Attempts now.")
	syncs       = describe("queue_syncs_total", "How often the journal was synced to disk.")
	commits     = describe("queue_commits_total", "Changes that waited for a sync; several share one.")
	syncTime    = describe("queue_sync_seconds_total", "Time that syncs of the journal took.")
	filtered    = describe("filtered_total", "What was refused for what others say of it: transactions by a DNS list, else messages; suspects are put off.", "by")
	connections = describe("smtp_connections", "Connections of clients, now.")
	expiry      = describe("certificate_expiry_timestamp_seconds", "When a certificate in force expires, in Unix time.", "name", "file")
)

// A collector asks the sources at each scrape.
type collector struct{ src Sources }

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		messages, healthy, held, size, oldest, segments, waiting, slots, used, attempts, running, syncs, commits, syncTime, filtered, connections, expiry,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	st := c.src.Store()
	gauge(messages, float64(st.Messages))
	well := 0.0
	if c.src.Healthy() {
		well = 1
	}
	gauge(healthy, well)
	gauge(held, float64(st.Held))
	gauge(size, float64(st.Bytes))
	gauge(segments, float64(st.Segments))
	age := 0.0
	if !st.Oldest.IsZero() {
		age = max(0, c.src.Now().Sub(st.Oldest).Seconds())
	}
	gauge(oldest, age)
	counter(syncs, float64(st.Syncs))
	counter(commits, float64(st.Commits))
	counter(syncTime, st.SyncTime.Seconds())

	counts := c.src.Counts()
	counter(attempts, float64(counts.Delivered), "delivered")
	counter(attempts, float64(counts.Deferred), "deferred")
	counter(attempts, float64(counts.Failed), "failed")
	gauge(running, float64(counts.Running))
	gauge(connections, float64(c.src.Connections()))
	by := c.src.Filtered()
	counter(filtered, float64(by.DNSBL), "dnsbl")
	counter(filtered, float64(by.Rspamd), "rspamd")
	counter(filtered, float64(by.Milter), "milter")
	counter(filtered, float64(by.Suspect), "suspect")

	for _, cert := range c.src.Certificates() {
		gauge(expiry, float64(cert.Expires.Unix()), cert.Name, cert.File)
	}

	depth := c.src.Waiting()
	for _, name := range largest(depth) {
		gauge(waiting, float64(depth[name]), name)
	}
	groups := c.src.Groups()
	slices.SortFunc(groups, func(a, b queue.GroupStatus) int {
		return cmp.Or(cmp.Compare(b.Used, a.Used), strings.Compare(a.Name, b.Name))
	})
	for _, g := range groups[:min(len(groups), maxGroups)] {
		gauge(slots, float64(g.Window), g.Name)
		gauge(used, float64(g.Used), g.Name)
	}
}

// largest names the groups with the most recipients, the first of them by name where they are alike.
func largest(depth map[string]int) []string {
	names := make([]string, 0, len(depth))
	for name := range depth {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(depth[b], depth[a]), strings.Compare(a, b))
	})
	return names[:min(len(names), maxGroups)]
}
