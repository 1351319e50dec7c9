package main

import (
	"errors"
	"net/http"
	"time"

	"relayd/metrics"
)

// newMetrics makes the metrics and the server that shows them to Prometheus.
func (d *daemon) newMetrics() (*metrics.Metrics, *http.Server) {
	m := metrics.New(metrics.Sources{
		Store: d.store.Stats, Waiting: d.store.Waiting, Counts: d.queue.Counts, Groups: d.queue.Groups,
		Connections: d.connections, Filtered: d.filter.Counts, Now: time.Now,
	})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
	return m, &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute, MaxHeaderBytes: 16 << 10}
}

func (d *daemon) connections() (n int) {
	for _, srv := range d.servers {
		n += srv.Connections()
	}
	return n
}

// serve serves a listener until the daemon goes down.
func (d *daemon) serve(l listener) error {
	if l.service != metricsService {
		return d.servers[l.service.index].Serve(l)
	}
	if err := d.web.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
