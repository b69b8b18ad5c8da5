package agent

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestHealth_TimeToVisible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h := NewHealth(slog.New(slog.NewTextHandler(&log, nil)))
		s := h.Scope("engine")
		s.Declare("connection", SeverityWarning, 2*time.Second)
		began := time.Now()
		s.Set("connection", errors.New("refused"), "start it")
		pass(2*time.Second - time.Nanosecond)
		if got := h.Conditions(); len(got) != 0 || log.Len() != 0 {
			t.Errorf("before its time: got %+v, %s", got, log.String())
		}
		s.Set("connection", errors.New("no such file"), "start it, please") // does not begin anew
		pass(time.Nanosecond)
		got := h.Conditions()
		if len(got) != 1 {
			t.Fatalf("at its time: got %+v", got)
		}
		want := Condition{"engine", "connection", SeverityWarning, began, "no such file", "start it, please"}
		if got[0] != want {
			t.Errorf("got %+v, want %+v", got[0], want)
		}
		if got := strings.Count(log.String(), "msg=condition "); got != 1 || !strings.Contains(log.String(), "level=WARN") {
			t.Errorf("the log has it %d times: %s", got, log.String())
		}
		s.Set("connection", nil, "")
		if len(h.Conditions()) != 0 || !strings.Contains(log.String(), `msg="condition passed"`) {
			t.Errorf("after it has passed: got %+v, %s", h.Conditions(), log.String())
		}
	})
}

func TestHealth_WhatHealsByItselfIsNotSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h := NewHealth(slog.New(slog.NewTextHandler(&log, nil)))
		s := h.Scope("engine")
		s.Declare("connection", SeverityError, 2*time.Second)
		for range 5 { // each time a new one, however often
			s.Set("connection", errors.New("refused"), "")
			pass(time.Second)
			s.Set("connection", nil, "")
			pass(time.Second)
		}
		pass(time.Minute)
		if got := h.Conditions(); len(got) != 0 || log.Len() != 0 {
			t.Errorf("got %+v, %s", got, log.String())
		}
	})
}

func TestHealth_Order(t *testing.T) {
	h := NewHealth(slog.New(slog.DiscardHandler))
	h.Scope("b").Declare("w", SeverityWarning, 0)
	h.Scope("b").Set("w", errors.New("1"), "")
	h.Scope("b").Set("y", errors.New("2"), "")
	h.Scope("b").Set("x", errors.New("3"), "")
	h.Scope("c").Set("undeclared", errors.New("4"), "")
	h.Scope("a").Set("passed", nil, "")
	var got []string
	for _, c := range h.Conditions() {
		got = append(got, c.Component+"."+c.Name+" "+string(c.Severity))
	}
	if got, want := strings.Join(got, ", "), "b.x error, b.y error, c.undeclared error, b.w warning"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := h.Err("c"); err == nil || err.Error() != "undeclared: 4" {
		t.Errorf("Err: got %v", err)
	}
	if err := h.Err("a"); err != nil {
		t.Errorf("Err of a healthy component: got %v", err)
	}
}
