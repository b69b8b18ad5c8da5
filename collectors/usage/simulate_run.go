package usage

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// SimulateOptions say what to replay.
type SimulateOptions struct {
	// Traces are replayed if there are any, and generated loads otherwise: Seeds
	// of each kind, from Seed on, of so many Days.
	Traces []Trace
	Seed   uint64
	Seeds  int
	Days   int
	Rough  float64 // noise and bursts, as a multiple of the usual; see Generate
	// Limited is whether a container can use no more than is reserved.
	Limited bool
}

// DefaultSimulateOptions returns what decides without a trace.
func DefaultSimulateOptions() SimulateOptions {
	return SimulateOptions{Seed: 1, Seeds: 20, Days: 28, Rough: 1}
}

// The bounds of a simulation: about ten minutes of a core.
const (
	mostSeeds = 1000
	mostDays  = 400
	leastDays = 3
)

// Validate returns what is wrong with the options.
func (o *SimulateOptions) Validate() error {
	var errs []error
	if len(o.Traces) > 0 {
		return nil
	}
	if o.Seeds < 1 || o.Seeds > mostSeeds {
		errs = append(errs, fmt.Errorf("%d seeds: give 1 to %d", o.Seeds, mostSeeds))
	}
	if o.Days < leastDays || o.Days > mostDays {
		errs = append(errs, fmt.Errorf("%d days: give %d to %d; 28 shows what weeks do", o.Days, leastDays, mostDays))
	}
	if !(o.Rough >= 0 && o.Rough <= 10) {
		errs = append(errs, fmt.Errorf("roughness %v: give 0 to 10; 1 is the usual", o.Rough))
	}
	return errors.Join(errs...)
}

// Simulation is what replaying loads has shown: for each method, what the
// reservations would have been worth that it made.
type Simulation struct {
	Generated bool    `json:"generated"`           // the loads are; else they are somebody's
	Seed      uint64  `json:"seed,omitempty"`      // the first seed of generated loads
	Rough     float64 `json:"roughness,omitempty"` // of generated loads
	Limited   bool    `json:"limited"`             // no container could use more than it reserved
	Loads     int     `json:"loads"`
	// Days is how long the longest load lasts, of which WarmUpDays are seen before
	// anything is scored.
	Days       float64  `json:"days"`
	WarmUpDays float64  `json:"warm_up_days"`
	Methods    []Scored `json:"methods"`
}

// Scored is a method with its scores.
type Scored struct {
	Method string `json:"method"`
	Score  Score  `json:"score"` // mean of all loads
	// Kinds are the means by kind of generated load, Loads the scores of each
	// trace.
	Kinds []NamedScore `json:"kinds,omitempty"`
	Loads []NamedScore `json:"loads,omitempty"`
}

// NamedScore is the score of a kind of load, or of one load.
type NamedScore struct {
	Name  string `json:"name"`
	Score Score  `json:"score"`
}

// Simulate replays loads for each of the methods, those of Methods as a rule, and
// scores them. The result depends on the arguments alone. It ends early, with the
// error of ctx, when that ends.
func Simulate(ctx context.Context, o SimulateOptions, methods []Method) (*Simulation, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	type job struct {
		group string
		make  func() Trace
	}
	var jobs []job
	s := &Simulation{Generated: len(o.Traces) == 0, Limited: o.Limited, Methods: []Scored{}}
	for _, t := range o.Traces {
		jobs = append(jobs, job{t.Name, func() Trace { return t }})
		s.Days = max(s.Days, (time.Duration(len(t.Cores))*Minute).Hours()/24)
	}
	if s.Generated {
		s.Seed, s.Rough, s.Days = o.Seed, o.Rough, float64(o.Days)
		for _, k := range Kinds {
			for i := range uint64(o.Seeds) {
				jobs = append(jobs, job{k, func() Trace { return Generate(k, o.Seed+i, o.Days, o.Rough) }})
			}
		}
	}
	s.Loads = len(jobs)
	s.WarmUpDays = min(WarmUp.Hours()/24, s.Days/3)

	// One load at a time for all methods: it is made once.
	scores := make([][]Score, len(methods))
	for i := range scores {
		scores[i] = make([]Score, len(jobs))
	}
	var working sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		working.Go(func() {
			for j := range next {
				t := jobs[j].make()
				for i, m := range methods {
					scores[i][j] = Replay(t, m, o.Limited)
				}
			}
		})
	}
	for j := range jobs {
		if ctx.Err() != nil {
			break
		}
		next <- j
	}
	close(next)
	working.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for i, m := range methods {
		scored := Scored{Method: m.Name, Score: Mean(scores[i])}
		if s.Generated {
			for k, kind := range Kinds {
				scored.Kinds = append(scored.Kinds, NamedScore{kind, Mean(scores[i][k*o.Seeds : (k+1)*o.Seeds])})
			}
		} else {
			for j := range jobs {
				scored.Loads = append(scored.Loads, NamedScore{jobs[j].group, scores[i][j]})
			}
		}
		s.Methods = append(s.Methods, scored)
	}
	return s, nil
}
