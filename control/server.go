package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"relayd/problem"
	"relayd/queue"
)

// A Daemon is what the socket controls.
type Daemon interface {
	Status() Status
	// Reload reads all edited files now and returns what is wrong with them.
	Reload() problem.List
	// Destinations lists the groups that mail waits for, or that were sent to of late, by name.
	Destinations() []Destination
	// Send takes a message as its sender's submission, or says why not.
	Send(ctx context.Context, env Sending, msg io.Reader) (*Sent, error)
	// CheckQueue reads everything in the queue and compares it with its sums, and tells progress
	// in bytes meanwhile, from the goroutine that it was called from. It ends soon after ctx.
	CheckQueue(ctx context.Context, progress func(done, total int64)) (*queue.Report, error)
	// Bans lists the bans in force that are meant, and Unban ends them.
	Bans(BanSelection) []Ban
	Unban(BanSelection) []Ban
}

// A Server answers on the socket.
type Server struct {
	daemon   Daemon
	queue    Queue
	http     http.Server
	ctx      context.Context // of all requests; ends with Close
	stop     context.CancelFunc
	serving  sync.RWMutex // held for reading by each request
	checking sync.Mutex   // held while the queue is checked
}

// NewServer makes a Server; Serve starts it.
func NewServer(d Daemon, q Queue, log *slog.Logger) *Server {
	s := &Server{daemon: d, queue: q}
	s.ctx, s.stop = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("GET /destinations", s.destinations)
	mux.HandleFunc("POST /reload", s.reload)
	mux.HandleFunc("POST /queue/list", s.list)
	mux.HandleFunc("POST /queue/count", s.count)
	mux.HandleFunc("GET /queue/groups", s.groups)
	mux.HandleFunc("GET /queue/messages/{id}", s.show)
	mux.HandleFunc("GET /queue/messages/{id}/eml", s.export)
	mux.HandleFunc("POST /queue/retry", s.change(q.Retry))
	mux.HandleFunc("POST /queue/hold", s.change(q.Hold))
	mux.HandleFunc("POST /queue/release", s.change(q.Release))
	mux.HandleFunc("POST /queue/remove", s.change(q.Remove))
	mux.HandleFunc("POST /queue/check", s.check)
	mux.HandleFunc("POST /send", s.send)
	mux.HandleFunc("POST /bans/list", s.bans)
	mux.HandleFunc("POST /bans/lift", s.unban)
	mux.HandleFunc("/", unknown)
	s.http = http.Server{
		Handler: s.counted(mux), BaseContext: func(net.Listener) context.Context { return s.ctx },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
	}
	return s
}

// Serve answers on l until Close; then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// counted has Close wait for every request.
func (s *Server) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.serving.RLock()
		defer s.serving.RUnlock()
		if s.ctx.Err() == nil {
			h.ServeHTTP(w, r)
		}
	})
}

// Close ends all connections and removes the socket. When it returns nothing more is done for a
// request, so that the queue can be closed.
func (s *Server) Close() error {
	s.stop()
	err := s.http.Close()
	s.serving.Lock()
	defer s.serving.Unlock()
	return err
}

func unknown(w http.ResponseWriter, r *http.Request) {
	http.Error(w, "relayd does not know "+r.Method+" "+r.URL.Path+": are it and relay-util of the same version?", http.StatusNotFound)
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	st := s.daemon.Status()
	// A list is written as one even if nothing is in it.
	st.Listeners = append([]Listener{}, st.Listeners...)
	st.Filters.Uses = append([]string{}, st.Filters.Uses...)
	st.Health.Damaged = append([]string{}, st.Health.Damaged...)
	st.Domains = append([]DomainStatus{}, st.Domains...)
	st.Certs = append([]Certificate{}, st.Certs...)
	st.ACME = append([]ACME{}, st.ACME...)
	st.Problems = append(problem.List{}, st.Problems...)
	st.Warnings = append(problem.List{}, st.Warnings...)
	answer(w, st)
}

func (s *Server) destinations(w http.ResponseWriter, _ *http.Request) {
	answer(w, append([]Destination{}, s.daemon.Destinations()...))
}

func (s *Server) reload(w http.ResponseWriter, _ *http.Request) {
	problems := s.daemon.Reload()
	if problems == nil {
		problems = problem.List{}
	}
	answer(w, problems)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}
