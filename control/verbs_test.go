package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"relayd/queue"
)

func TestShowHasTheHistoryAndTheListHasNot(t *testing.T) {
	f := &fake{envelopes: threeMessages()}
	runs := []queue.Run{
		{First: noon, Last: noon.Add(time.Hour), Count: 3, Host: "mx1", Reply: "421 4.7.0 slow down"},
		{First: noon.Add(2 * time.Hour), Last: noon.Add(2 * time.Hour), Count: 1},
	}
	f.envelopes[2].Recipients[0].History, f.envelopes[2].Recipients[0].Trying = runs, true
	c, _ := serve(t, f)
	d, err := c.Show(context.Background(), "CCCCCCCC")
	if err != nil || !reflect.DeepEqual(d.Recipients[0].History, runs) || !d.Recipients[0].Trying {
		t.Errorf("%+v, %v", d, err)
	}
	if list := get(t, c, "POST", "/queue/list"); strings.Contains(list, "history") || strings.Contains(list, "trying") {
		t.Errorf("the list is %s", list)
	}
	f.body = func() io.Reader { return iotest.ErrReader(errors.New("bad sum")) }
	if d, err := c.Show(context.Background(), "CCCCCCCC"); err != nil || d.Header != "" || d.Unreadable != "bad sum" {
		t.Errorf("a damaged one: %+v, %v", d, err)
	}
}

func TestExport(t *testing.T) {
	f := &fake{envelopes: threeMessages()}
	c, _ := serve(t, f)
	export := func(id string) (string, error) {
		var b bytes.Buffer
		err := c.Export(context.Background(), id, &b)
		return b.String(), err
	}
	if text, err := export("AAAAAAAA"); text != aBody || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := export("DDDDDDDD"); text != "" || !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("one that is not there: %q, %v", text, err)
	}
	if text, err := export("../../x"); text != "" || err == nil {
		t.Errorf("no ID: %q, %v", text, err)
	}
	for name, body := range map[string]io.Reader{
		"one whose sum is wrong": io.MultiReader(strings.NewReader(aBody), iotest.ErrReader(errors.New("bad sum"))),
		"a short one":            strings.NewReader(aBody[1:]),
	} {
		f.body = func() io.Reader { return body }
		if text, err := export("AAAAAAAA"); text != "" || !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	times := 0
	f.body = func() io.Reader {
		if times++; times == 2 {
			return strings.NewReader(aBody[:9])
		}
		return strings.NewReader(aBody)
	}
	if _, err := export("AAAAAAAA"); err == nil || !strings.Contains(err.Error(), "broke off") {
		t.Errorf("one that becomes damaged while it is read: %v", err)
	}
}

func TestDestinations(t *testing.T) {
	f := &fake{}
	c, _ := serve(t, f)
	if list, err := c.Destinations(t.Context()); err != nil || list == nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
	f.destinations = []Destination{{Name: "google.com", Waiting: 3, Paused: noon, LastReply: "421 4.7.28 too fast", LastAt: noon}}
	if list, err := c.Destinations(t.Context()); err != nil || !slices.Equal(list, f.destinations) {
		t.Errorf("%v, %v", list, err)
	}
}

func TestGroupsThatWaitComeFirst(t *testing.T) {
	f := &fake{groups: []queue.GroupStatus{
		{Name: "a", Used: 1, Window: 4}, {Name: "b", Used: 3, Window: 4}, {Name: "c", Used: 2, Window: 2, WaitingSince: noon},
		{Name: "d", WaitingSince: noon.Add(-time.Minute)}, {Name: "e", Used: 3},
	}}
	c, _ := serve(t, f)
	for limit, want := range map[int]string{-1: "dcbea", 0: "", 2: "dc", 9: "dcbea"} {
		list, err := c.Groups(context.Background(), limit)
		got := ""
		for _, g := range list {
			got += g.Name
		}
		if got != want || err != nil {
			t.Errorf("%d groups: %q, %v", limit, got, err)
		}
	}
	if list, _ := c.Groups(context.Background(), 2); list[1] != (Group{Name: "c", Used: 2, Window: 2, WaitingSince: noon}) {
		t.Errorf("%+v", list)
	}
}

func TestCheck(t *testing.T) {
	found := &queue.Report{Segments: 2, Messages: 5, Damage: []queue.Damage{{File: "f", ID: "AAAAAAAA", What: "bad"}}, Aside: []string{"g"}}
	f := &fake{check: func(_ context.Context, progress func(done, total int64)) (*queue.Report, error) {
		for n := range int64(1000) {
			progress(n, 1000)
		}
		progress(1000, 1000)
		return found, nil
	}}
	c, _ := serve(t, f)
	var last int64
	report, err := c.Check(context.Background(), func(done, total int64) {
		if done < last || total != 1000 {
			t.Errorf("%d of %d after %d", done, total, last)
		}
		last = done
	})
	if err != nil || last != 1000 || !reflect.DeepEqual(report, found) {
		t.Errorf("%d, %+v, %v", last, report, err)
	}
	f.check = func(context.Context, func(done, total int64)) (*queue.Report, error) {
		return nil, errors.New("disk gone")
	}
	if report, err := c.Check(context.Background(), func(done, total int64) {}); report != nil || err == nil || err.Error() != "disk gone" {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestCheckEndsWithItsClient: and while it goes on there is no second one.
func TestCheckEndsWithItsClient(t *testing.T) {
	began, ended := make(chan bool), make(chan bool)
	f := &fake{check: func(ctx context.Context, _ func(done, total int64)) (*queue.Report, error) {
		began <- true
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}}
	c, _ := serve(t, f)
	ctx, interrupt := context.WithCancel(context.Background())
	failed := make(chan error)
	go func() {
		_, err := c.Check(ctx, func(done, total int64) {})
		failed <- err
	}()
	<-began
	if _, err := c.Check(context.Background(), func(done, total int64) {}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second one: %v", err)
	}
	interrupt()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-ended
}

// TestCloseWaitsForRequests: a check that reads a queue which is being closed would find damage
// where there is none.
func TestCloseWaitsForRequests(t *testing.T) {
	path := socketPath(t)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	began := make(chan bool)
	var over atomic.Bool
	f := &fake{check: func(ctx context.Context, _ func(done, total int64)) (*queue.Report, error) {
		close(began)
		<-ctx.Done()
		runtime.Gosched()
		over.Store(true)
		return nil, ctx.Err()
	}}
	s := NewServer(f, f, slog.New(slog.DiscardHandler))
	go s.Serve(l)
	asked := make(chan error)
	go func() {
		_, err := NewClient(path).Check(context.Background(), func(done, total int64) {})
		asked <- err
	}()
	<-began
	s.Close()
	if !over.Load() {
		t.Error("a check goes on")
	}
	if err := <-asked; err == nil {
		t.Error("a check that was cut short is none")
	}
}

func TestSilenceIsNotWaitedForForEver(t *testing.T) {
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // nobody accepts
	c := NewClient(path)
	c.wait = 50 * time.Millisecond
	if _, err := c.Status(context.Background()); !errors.Is(err, errSilent) {
		t.Error(err)
	}
}

func TestSilenceInTheMidstOfAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, w := watchOver(context.Background(), time.Second)
		answer, server := io.Pipe()
		context.AfterFunc(ctx, func() { answer.CloseWithError(ctx.Err()) }) // as net/http does
		w.ReadCloser = answer
		go server.Write([]byte("abc"))
		if text, err := io.ReadAll(w); string(text) != "abc" || !errors.Is(err, errSilent) {
			t.Errorf("%q, %v", text, err)
		}
	})
}

// TestTimeOfTheReaderIsNoSilence: somebody who pages through a list is not cut off.
func TestTimeOfTheReaderIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, w := watchOver(context.Background(), time.Second)
		w.ReadCloser = io.NopCloser(strings.NewReader("abc"))
		for range 3 {
			if _, err := w.Read(make([]byte, 1)); err != nil || ctx.Err() != nil {
				t.Fatal(err, ctx.Err())
			}
			time.Sleep(time.Hour)
		}
		if w.Close(); ctx.Err() == nil {
			t.Error("the request goes on behind its end")
		}
	})
}
