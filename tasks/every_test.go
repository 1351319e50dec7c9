package tasks

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 35*time.Second)
		defer cancel()
		began, calls := time.Now(), 0
		Every(ctx, 10*time.Second, func() { calls++ })
		if took := time.Since(began); calls != 3 || took != 35*time.Second {
			t.Errorf("%d calls, ended after %s", calls, took)
		}
	})
}
