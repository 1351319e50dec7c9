package tlsrpt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// suffix is of the files that belong to the book, one per day. No other file is touched.
	suffix = ".tls-results"
	// maxFile is the most that is read of one, in bytes.
	maxFile = 256 << 20
)

// Open goes on with what was counted today before the last end. The error is that of a folder that
// cannot be made.
func Open(opt Options) (*Book, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	b := &Book{opt: opt}
	b.today = newDay(b.date())
	if opt.Dir == "" {
		return b, nil
	}
	if err := os.MkdirAll(opt.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of TLS results: %w", err)
	}
	d, err := b.load(b.today.date)
	if err != nil {
		opt.Log.Warn("the TLS results of today cannot be read and begin anew", "error", err.Error())
		return b, nil
	}
	b.today = d
	return b, nil
}

// Run writes what was counted from time to time, and forgets days that are over, until ctx ends.
func (b *Book) Run(ctx context.Context) {
	tick := time.NewTicker(FlushEvery)
	defer tick.Stop()
	for {
		b.forget()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			b.flush()
		}
	}
}

// Close writes what was counted. It can be called more than once.
func (b *Book) Close() { b.flush() }

// flush writes the counts that are not on disk.
func (b *Book) flush() {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	days := append(slices.Clone(b.past), b.today)
	b.mu.Unlock()
	for _, d := range days {
		b.flushDay(d)
	}
	b.mu.Lock()
	b.past = slices.DeleteFunc(b.past, func(d *day) bool { return !d.dirty })
	b.mu.Unlock()
}

func (b *Book) flushDay(d *day) {
	b.mu.Lock()
	var data []byte
	if d.dirty {
		data = d.encode()
		d.dirty = false
	}
	b.mu.Unlock()
	if data != nil && !b.write(d.date, data) {
		b.mu.Lock()
		d.dirty = true
		b.mu.Unlock()
	}
}

// write reports whether it did.
func (b *Book) write(date string, data []byte) bool {
	if b.opt.Dir == "" {
		return true
	}
	if err := b.opt.Write(b.path(date), data); err != nil {
		b.opt.Log.Warn("TLS results not written", "day", date, "error", err.Error())
		return false
	}
	return true
}

func (b *Book) path(date string) string { return filepath.Join(b.opt.Dir, date+suffix) }

// load reads a day, which is empty if there is no file of it.
func (b *Book) load(date string) (*day, error) {
	if b.opt.Dir == "" {
		return newDay(date), nil
	}
	f, err := os.Open(b.path(date))
	if errors.Is(err, fs.ErrNotExist) {
		return newDay(date), nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, err
	}
	return decode(date, data)
}

// A saved is what stands in a file.
type saved struct {
	Day     string  `json:"day"`
	Tallies []tally `json:"tallies"`
}

func (d *day) encode() []byte {
	data, err := json.Marshal(saved{d.date, d.sorted()})
	if err != nil {
		panic(err) // numbers, texts and addresses always have a JSON form
	}
	return data
}

// decode reads what encode made, and takes no more from it than Add would have.
func decode(date string, data []byte) (*day, error) {
	var s saved
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	if s.Day != date || len(s.Tallies) > maxDomains {
		return nil, fmt.Errorf("it is about %.20q, with %d domains", s.Day, len(s.Tallies))
	}
	d := newDay(date)
	for _, t := range s.Tallies {
		key := tallyKey{t.Policy.Domain, t.Policy.Type}
		if d.tallies[key] != nil || key.domain == "" || len(t.Details) > maxDetails {
			return nil, fmt.Errorf("%.300q stands in it twice, or is too much", key.domain)
		}
		d.tallies[key] = &t
	}
	return d, nil
}

// forget removes the files of days that nobody asks for any more, and of days to come, which a
// clock was set back from.
func (b *Book) forget() {
	if b.opt.Dir == "" {
		return
	}
	names, err := os.ReadDir(b.opt.Dir)
	if err != nil {
		b.opt.Log.Warn("TLS results not looked through", "error", err.Error())
		return
	}
	today := b.opt.Now().UTC().Truncate(24 * time.Hour)
	for _, name := range names {
		at, err := time.Parse(dateFormat, strings.TrimSuffix(name.Name(), suffix))
		if err != nil || !strings.HasSuffix(name.Name(), suffix) {
			continue
		}
		if age := today.Sub(at); age < 0 || age >= keepDays*24*time.Hour {
			if err := os.Remove(filepath.Join(b.opt.Dir, name.Name())); err != nil {
				b.opt.Log.Warn("old TLS results not removed", "error", err.Error())
			}
		}
	}
}
