package control

import (
	"encoding/json"
	"io"
	"net/http"
	"time"
)

const (
	// flushEvery is how old what is written may get before it is sent on: soon to an eye, and
	// seldom beside the work.
	flushEvery = 100 * time.Millisecond
	// signOfLife is after how long without anything to tell a sign of life is sent, so that who
	// waits can tell work from a standstill.
	signOfLife = 5 * time.Second
)

// A stream writes a JSON array whose elements come one by one. An array that has no end tells
// that something is missing.
type stream struct {
	w       http.ResponseWriter
	enc     *json.Encoder
	sep     string
	pending bool // something is not sent on
	flushed time.Time
}

func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, "[")
	return &stream{w: w, enc: json.NewEncoder(w), flushed: time.Now()}
}

// put writes an element. It returns false if nobody reads any more.
func (s *stream) put(v any) bool {
	io.WriteString(s.w, s.sep)
	s.sep, s.pending = ",", true
	err := s.enc.Encode(v)
	s.breathe()
	return err == nil
}

// breathe is to be called all the while between elements.
func (s *stream) breathe() {
	age := time.Since(s.flushed)
	if age < flushEvery || !s.pending && age < signOfLife {
		return
	}
	if !s.pending {
		io.WriteString(s.w, "\n") // which is nothing in JSON
	}
	s.flush()
}

// flush sends on what was put. Its error says that nobody reads any more.
func (s *stream) flush() error {
	s.pending, s.flushed = false, time.Now()
	return http.NewResponseController(s.w).Flush()
}

// due reports whether what is put now is sent on at once.
func (s *stream) due() bool { return time.Since(s.flushed) >= flushEvery }

func (s *stream) end() { io.WriteString(s.w, "]\n") }
