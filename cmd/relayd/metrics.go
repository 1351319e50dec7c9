package main

import (
	"errors"
	"log"
	"net/http"
	"time"

	"relayd/metrics"
)

// newMetrics makes the metrics and the server that shows them to Prometheus.
func (d *daemon) newMetrics() (*metrics.Metrics, *http.Server) {
	m := metrics.New(metrics.Sources{
		Store: d.store.Stats, Healthy: d.healthy, Waiting: d.store.Waiting, Counts: d.queue.Counts, Groups: d.queue.Groups,
		Connections: d.connections, Filtered: d.filter.Counts, Certificates: d.expiries, Now: time.Now,
	})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
	return m, &http.Server{
		Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: log.New(webLog{d.log}, "", 0),
	}
}

func (d *daemon) healthy() bool {
	h := d.store.Health()
	return h.Failure == nil && len(h.Damaged) == 0
}

func (d *daemon) connections() (n int) {
	for _, srv := range d.servers {
		n += srv.Connections()
	}
	return n
}

// serve serves a listener until the daemon goes down.
func (d *daemon) serve(l listener) error {
	var err error
	switch l.service {
	case metricsService:
		err = d.web.Serve(l)
	case httpService, httpsService:
		err = d.serveWeb(l, l.service.implicitTLS)
	default:
		return d.servers[l.service.index].Serve(l)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
