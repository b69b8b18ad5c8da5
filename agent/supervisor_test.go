package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func newSupervisor() (*Supervisor, *Health) {
	log := slog.New(slog.DiscardHandler)
	h := NewHealth(log)
	return NewSupervisor(Env{Log: log, Health: h}), h
}

func TestSupervisor_RestartsWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, h := newSupervisor()
		var starts []time.Time
		s.Start(t.Context(), "failing", func(context.Context) error {
			starts = append(starts, time.Now())
			return errors.New("no luck")
		})
		synctest.Wait()
		if err := h.Err("failing"); err == nil || !strings.Contains(err.Error(), "no luck") {
			t.Errorf("condition: got %v", err)
		}
		pass(5 * time.Minute)
		s.Stop("failing")
		var pauses []time.Duration
		for i := range starts[1:] {
			pauses = append(pauses, starts[i+1].Sub(starts[i]).Round(time.Second)/time.Second)
		}
		if want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60}; !slices.Equal(pauses[:min(9, len(pauses))], want) {
			t.Errorf("pauses in seconds: got %d, want %d", pauses, want)
		}
		if err := h.Err("failing"); err != nil {
			t.Errorf("condition of a stopped component: got %v", err)
		}
	})
}

func TestSupervisor_LongLifeForgivesFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newSupervisor()
		var starts []time.Time
		s.Start(t.Context(), "part", func(ctx context.Context) error {
			starts = append(starts, time.Now())
			if len(starts) == 4 {
				time.Sleep(2 * restartLast)
			}
			return errors.New("no luck")
		})
		pass(7*time.Second + 2*restartLast) // 1+2+4 s of pauses
		pass(restartFirst)
		s.Stop("part")
		if len(starts) != 5 {
			t.Errorf("starts: got %d, want a short pause after a long life", len(starts))
		}
	})
}

func TestSupervisor_PanicIsAnErrorOfThatPartAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, h := newSupervisor()
		s.Start(t.Context(), "bad", func(context.Context) error { panic("oops") })
		s.Start(t.Context(), "good", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		s.Start(t.Context(), "short", func(context.Context) error { return nil })
		synctest.Wait()
		status := s.Status()
		if len(status) != 3 || status[0].Name != "bad" || status[1].Name != "good" {
			t.Fatalf("got %+v", status)
		}
		if got := status[0]; got.State != "failed" || got.Restarts != 1 || !strings.Contains(got.Err, "panic: oops") || !strings.Contains(got.Err, "supervisor_test.go") {
			t.Errorf("bad: got %+v, want failed, with the stack", got)
		}
		if got := status[1]; got.State != "running" || got.Restarts != 0 || got.Err != "" {
			t.Errorf("good: got %+v, want running", got)
		}
		if err := h.Err("short"); err == nil || !strings.Contains(err.Error(), "without being told") {
			t.Errorf("short: got %v, want a condition", err)
		}
		s.StopAll()
		if got := s.Status(); len(got) != 0 {
			t.Errorf("after StopAll: got %+v", got)
		}
		s.StopAll()
		s.Stop("never was")
	})
}

func TestSupervisor_StopWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newSupervisor()
		var cleaned atomic.Bool
		run := func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(3 * time.Second) // cleaning up
			cleaned.Store(true)
			return errors.New("not quite clean") // logged, not restarted
		}
		s.Start(t.Context(), "slow", run)
		synctest.Wait()
		s.Stop("slow")
		if !cleaned.Load() {
			t.Error("Stop returned before the component had ended")
		}
		s.Start(t.Context(), "slow", run) // the name is free again
		synctest.Wait()
		began := time.Now()
		s.Start(t.Context(), "slow too", run)
		s.StopAll()
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("StopAll took %v, want 3s: all end at once", took)
		}
	})
}

func TestSupervisor_NameInUse(t *testing.T) {
	s, _ := newSupervisor()
	s.Start(t.Context(), "part", func(ctx context.Context) error { <-ctx.Done(); return nil })
	defer s.StopAll()
	defer func() {
		if recover() == nil {
			t.Error("a second component of the same name is started")
		}
	}()
	s.Start(t.Context(), "part", func(context.Context) error { return nil })
}
