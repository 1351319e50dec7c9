package tasks

import (
	"strings"
	"sync/atomic"
	"testing"
)

func TestAPanicGoesToWhoWaits(t *testing.T) {
	var g Group
	var done atomic.Int64
	for i := range 10 {
		g.Go(func() {
			if i == 5 {
				panic("at the fifth")
			}
			done.Add(1)
		})
	}
	defer func() {
		p, ok := recover().(*Panic)
		if !ok || p.Value != "at the fifth" || !strings.Contains(p.Error(), "in a task: at the fifth\n") || !strings.Contains(p.Stack, "tasks_test.go") {
			t.Errorf("%v", p)
		}
		if done.Load() != 9 {
			t.Errorf("%d of the others are done", done.Load())
		}
	}()
	g.Wait()
}

func TestTasksAreWaitedFor(t *testing.T) {
	var g Group
	var done atomic.Int64
	for range 10 {
		g.Go(func() { done.Add(1) })
	}
	if g.Wait(); done.Load() != 10 {
		t.Errorf("%d are done", done.Load())
	}
}
