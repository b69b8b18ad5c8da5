package agent

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Severity says how much a health condition matters.
type Severity string

// A Warning degrades something; an Error means that some duty is not being
// done.
const (
	SeverityWarning Severity = "warning"
	SeverityError   Severity = "error"
)

// Condition is one thing that is wrong, for `berth status`, /readyz and the
// metrics.
type Condition struct {
	Component string    `json:"component"`
	Name      string    `json:"name"`
	Severity  Severity  `json:"severity"`
	Since     time.Time `json:"since"`
	Why       string    `json:"why"`
	Hint      string    `json:"hint,omitempty"` // what to do about it
}

// Health tracks the conditions of all components. Its zero value is not usable;
// see NewHealth. All of its methods are safe for concurrent use.
type Health struct {
	log *slog.Logger

	mu     sync.Mutex
	active map[conditionKey]*activeCondition
	rules  map[conditionKey]rule
}

type conditionKey struct{ component, name string }

type activeCondition struct {
	Condition
	logged bool
	timer  *time.Timer
}

type rule struct {
	severity Severity
	visible  time.Duration
}

// NewHealth returns a tracker that logs every condition as it appears and
// disappears.
func NewHealth(log *slog.Logger) *Health {
	return &Health{
		log:    log,
		active: make(map[conditionKey]*activeCondition),
		rules:  make(map[conditionKey]rule),
	}
}

// Scope returns the view of one component.
func (h *Health) Scope(component string) *Scope { return &Scope{h, component} }

// Scope is where one component reports its conditions.
type Scope struct {
	health    *Health
	component string
}

// Declare sets a condition's severity (an undeclared one is an error) and its
// time to visible: how long it must last before anyone is told, so that what
// heals by itself wakes nobody up.
func (s *Scope) Declare(name string, severity Severity, visible time.Duration) {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	s.health.rules[conditionKey{s.component, name}] = rule{severity, visible}
}

// Set records that the named condition holds because of err, or that it has
// passed if err is nil. The hint says what a person can do about it. A
// condition that stays keeps its Since; repeating it is cheap.
func (s *Scope) Set(name string, err error, hint string) {
	h := s.health
	key := conditionKey{s.component, name}
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.active[key]
	if err == nil {
		if c == nil {
			return
		}
		delete(h.active, key)
		if c.timer != nil {
			c.timer.Stop()
		}
		if c.logged {
			h.log.Info("condition passed", "component", s.component, "condition", name,
				"after", time.Since(c.Since).Round(time.Millisecond))
		}
		return
	}
	if c == nil {
		r, ok := h.rules[key]
		if !ok {
			r.severity = SeverityError
		}
		c = &activeCondition{Condition: Condition{
			Component: s.component, Name: name, Severity: r.severity, Since: time.Now(),
		}}
		h.active[key] = c
		if r.visible > 0 {
			c.timer = time.AfterFunc(r.visible, func() { h.reveal(key, c) })
		}
	}
	c.Why, c.Hint = err.Error(), hint
	if !c.logged && c.timer == nil {
		h.logCondition(c)
	}
}

// reveal makes a condition visible that has lasted for its time.
func (h *Health) reveal(key conditionKey, c *activeCondition) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.active[key] == c {
		c.timer = nil
		h.logCondition(c)
	}
}

func (h *Health) logCondition(c *activeCondition) {
	c.logged = true
	level := slog.LevelError
	if c.Severity == SeverityWarning {
		level = slog.LevelWarn
	}
	args := []any{"component", c.Component, "condition", c.Name, "err", c.Why}
	if c.Hint != "" {
		args = append(args, "hint", c.Hint)
	}
	h.log.Log(context.Background(), level, "condition", args...)
}

// Conditions returns the conditions that are visible now, errors first, then
// by component and name.
func (h *Health) Conditions() []Condition {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]Condition, 0, len(h.active))
	for _, c := range h.active {
		if c.timer == nil {
			out = append(out, c.Condition)
		}
	}
	slices.SortFunc(out, func(a, b Condition) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Component, b.Component), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// Err returns an error that joins the visible conditions of one component, or
// nil when there are none.
func (h *Health) Err(component string) error {
	var errs []error
	for _, c := range h.Conditions() {
		if c.Component == component {
			errs = append(errs, errors.New(c.Name+": "+c.Why))
		}
	}
	return errors.Join(errs...)
}
