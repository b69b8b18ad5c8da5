package usage

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"time"
)

// Report is the answer to GET /v1/usage/report: what the containers of this host
// reserve, what they use, and what they should reserve. Figures in cores are CPU
// time by time; figures in bytes of memory are working sets.
type Report struct {
	At   time.Time `json:"at"`   // of the newest figures; zero before the first measurement
	Node string    `json:"node"` // identity of the host; may be empty

	// Since is the beginning of the oldest hour that is remembered, of at most
	// eight days.
	Since *time.Time `json:"since,omitempty"`
	// LearningHours is how many hours of a service must be known before there
	// is advice to reserve less.
	LearningHours float64 `json:"learning_hours"`
	Band          Band    `json:"band"`

	Host       HostUsage `json:"host"`
	Sums       Sums      `json:"sums"`
	Services   []Row     `json:"services"`   // by name, environment and instance type
	Containers []Row     `json:"containers"` // that run, by name; without hours
}

// HistoryHours is how many hours are remembered of a service: eight days.
const HistoryHours = 8 * 24

// Band is where a lying factor is in order, in cores: below Low a container lives
// on what others have reserved, above High its reservation is waste.
type Band struct {
	Low  float64 `json:"low_cores"`
	High float64 `json:"high_cores"`
	// HighShare bounds High for small containers, by a share of what is
	// reserved; 0 does not.
	HighShare float64 `json:"high_share,omitempty"`
}

// Of returns the band for a container that reserves so many cores.
func (b Band) Of(reserved float64) Band {
	if b.HighShare > 0 {
		b.High = min(b.High, b.HighShare*reserved)
	}
	return b
}

// HostUsage is about the whole host, in the last interval.
type HostUsage struct {
	Containers int `json:"containers"` // that run
	Unreserved int `json:"unreserved"` // of them, those that reserve no CPU

	Cores         float64  `json:"cores"` // that are online
	ReservedCores float64  `json:"reserved_cores"`
	UsedCores     *float64 `json:"used_cores,omitempty"`      // by everything; nil before there are two sweeps
	ContainerUsed *float64 `json:"container_cores,omitempty"` // by containers; nil like UsedCores

	Memory         uint64 `json:"memory_bytes"`
	ReservedMemory uint64 `json:"memory_reserved_bytes"`
	UsedMemory     uint64 `json:"memory_used_bytes"` // what is not available
}

// Sums are those of the services' advice, for the containers that run now.
type Sums struct {
	Oversized  int `json:"oversized"` // services
	Undersized int `json:"undersized"`
	Learning   int `json:"learning"`
	Unreserved int `json:"unreserved"`
	InBand     int `json:"in_band"`

	FreeCores  float64 `json:"free_cores"`   // that need not be reserved
	FreeMemory uint64  `json:"free_bytes"`   // likewise
	NeedCores  float64 `json:"needed_cores"` // that should be reserved, and are not
	NeedMemory uint64  `json:"needed_bytes"` // likewise
}

// Row is about one service in one environment and on one type of instance, or
// about one container. Cores and bytes are always those of one container: of a
// service, the mean of those that run for what is reserved and used, and of all
// its containers together for p50, p95 and max.
type Row struct {
	Service      string `json:"service"`
	Environment  string `json:"environment,omitempty"`
	InstanceType string `json:"instance_type,omitempty"`
	Container    string `json:"container,omitempty"`    // its name; not of a service
	ContainerID  string `json:"container_id,omitempty"` // 64 hexadecimal digits; not of a service
	Critical     bool   `json:"critical,omitempty"`     // it is sized with more room
	Containers   int    `json:"containers"`             // that run; 1 for a container

	// Verdict is undersized if that of CPU or Memory is, else oversized if either
	// is, else that of CPU.
	Verdict string `json:"verdict"`
	// HistoryHours is how many hours are known, of 192 at most.
	HistoryHours float64 `json:"history_hours"`

	CPU    CPU    `json:"cpu"`
	Memory Memory `json:"memory"`

	// Hours are those of eight days, only of services and where asked for.
	Hours *Series `json:"hours,omitempty"`
}

// CPU is what a Row says of CPU time, in cores.
type CPU struct {
	Reserved float64 `json:"reserved_cores"` // 0 with the source none
	Source   string  `json:"reserved_source"`
	Limit    float64 `json:"limit_cores,omitempty"` // 0 for none

	Used   float64 `json:"used_cores"` // moving average of 5 minutes
	Hourly float64 `json:"used_1h_cores"`
	P50    float64 `json:"p50_cores"` // of about two days: what was seen a day ago counts half
	P95    float64 `json:"p95_cores"`
	Max    float64 `json:"max_cores"` // of what is remembered

	// Throttled is in which share of the active periods of the last hour the
	// container was stopped for its quota; nil without one.
	Throttled *float64 `json:"throttled_ratio,omitempty"`
	// LyingFactor is Reserved less Hourly; nil where nothing is reserved.
	LyingFactor *float64 `json:"lying_factor_cores,omitempty"`

	// Verdict of a container is that of its service, but where it reserves nothing
	// unlike others, or already what is advised.
	Verdict string   `json:"verdict"`
	Advice  *float64 `json:"advice_cores,omitempty"` // what to reserve; nil while that is not known
	Reasons []Reason `json:"reasons"`
	// AdviceNow is what to reserve just now, by the hours of the day; nil unless
	// usage.advice.hourly is set and the hours are known.
	AdviceNow *float64 `json:"advice_now_cores,omitempty"`
	// Decided is the beginning of the hour that Advice was made of.
	Decided *time.Time `json:"decided_by,omitempty"`
}

// Memory is what a Row says of memory, in bytes.
type Memory struct {
	Reserved uint64 `json:"reserved_bytes"` // 0 with the source none
	Source   string `json:"reserved_source"`
	Limit    uint64 `json:"limit_bytes,omitempty"` // 0 for none

	Used     uint64 `json:"used_bytes"`
	P50      uint64 `json:"p50_bytes"`
	P95      uint64 `json:"p95_bytes"`
	Max      uint64 `json:"max_bytes"`
	OOMKills uint64 `json:"oom_kills"` // in the hours that are remembered

	// LyingFactor is Reserved less Used; nil where nothing is reserved.
	LyingFactor *float64 `json:"lying_factor_bytes,omitempty"`

	Verdict string   `json:"verdict"`
	Advice  *uint64  `json:"advice_bytes,omitempty"` // what to reserve; nil while that is not known
	Reasons []Reason `json:"reasons"`
}

// The verdicts on a reservation.
const (
	Oversized     = "oversized"  // waste: it can be less
	Undersized    = "undersized" // danger: it must be more
	InBand        = "in_band"    // it is right
	NotReserved   = "unreserved" // there is none
	StillLearning = "learning"   // too little is known
)

// Reason is one ground of a verdict.
type Reason struct {
	Code string `json:"code"` // stable, for scripts: see the constants
	Why  string `json:"why"`  // for people, with the evidence: one sentence without a full stop
}

// Codes of reasons.
const (
	CodeBelow     = "below_band"    // the lying factor is below the band
	CodeAbove     = "above_band"    // it is above the band
	CodeWithin    = "within_band"   // it is in the band
	CodePeak      = "hourly_peak"   // sized by the highest hour that is remembered
	CodeThrottled = "throttled"     // the quota stops it, so that its use says less than it needs
	CodePressure  = "cpu_pressure"  // it waits for CPUs
	CodeOOM       = "oom_killed"    // the out-of-memory killer came
	CodeShort     = "short_history" // too few hours are known
	CodeCooldown  = "cooldown"      // the reservation has been changed just now
	CodeFloor     = "floor"         // what it needs is less than the least that is advised
	CodeSmall     = "small_change"  // the difference is not worth a change
	CodeNone      = "no_reservation"
)

// Series are hours of a service, HistoryHours and the present one at most, as columns of the same length: element i is the
// hour that begins i hours after Start. Cores and bytes are those of one
// container; by Containers they become those of the service.
type Series struct {
	Start time.Time `json:"start"` // a full hour, UTC

	Containers Values `json:"containers"` // that ran on average; 0 where none did
	Reserved   Values `json:"reserved_cores"`
	Used       Values `json:"used_cores"` // mean
	P90        Values `json:"p90_cores"`
	P95        Values `json:"p95_cores"`
	Max        Values `json:"max_cores"`
	Throttled  Values `json:"throttled_ratio"` // of active periods
	Memory     Values `json:"memory_bytes"`    // highest working set
	OOMKills   Values `json:"oom_kills"`
}

// Values are figures, of which NaN are not known: null in JSON, where all are
// rounded to four digits.
type Values []float64

// MarshalJSON implements json.Marshaler.
func (v Values) MarshalJSON() ([]byte, error) {
	out := append(make([]byte, 0, 6*len(v)+2), '[')
	for i, f := range v {
		if i > 0 {
			out = append(out, ',')
		}
		if math.IsNaN(f) || math.IsInf(f, 0) {
			out = append(out, "null"...)
		} else {
			out = strconv.AppendFloat(out, f, 'g', 4, 64)
		}
	}
	return append(out, ']'), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *Values) UnmarshalJSON(raw []byte) error {
	if bytes.Equal(raw, []byte("null")) {
		*v = nil
		return nil
	}
	var in []*float64
	if err := json.Unmarshal(raw, &in); err != nil {
		return err
	}
	*v = make(Values, len(in))
	for i, f := range in {
		(*v)[i] = math.NaN()
		if f != nil {
			(*v)[i] = *f
		}
	}
	return nil
}

// reporter is a book that reports. Report may be called from any goroutine. What
// it returns belongs to the caller; hours says whether to fill in Row.Hours. It
// leaves out Sums, and Verdict of rows, which are made of the rest: see complete.
type reporter interface {
	Report(now time.Time, hours bool) Report
}

// complete fills in what follows from the rest of a report.
func (r *Report) complete() {
	if r.Services == nil {
		r.Services = []Row{}
	}
	if r.Containers == nil {
		r.Containers = []Row{}
	}
	for _, rows := range [][]Row{r.Services, r.Containers} {
		for i := range rows {
			rows[i].complete()
		}
	}
	r.Sums = Sum(r.Services)
}

func (w *Row) complete() {
	w.Verdict = w.CPU.Verdict
	// Danger of either comes first, then waste of either. Otherwise it is that of
	// CPU: many containers reserve no memory on purpose.
	if m := w.Memory.Verdict; m == Undersized || m == Oversized && w.Verdict != Undersized {
		w.Verdict = m
	}
	if w.CPU.Reasons == nil {
		w.CPU.Reasons = []Reason{}
	}
	if w.Memory.Reasons == nil {
		w.Memory.Reasons = []Reason{}
	}
}

// FreeCores returns the cores that all running containers of the row reserve
// beyond the advice: negative where they should reserve more, and 0 where there
// is no advice to change anything.
func (w *Row) FreeCores() float64 {
	if w.CPU.Advice == nil || w.CPU.Verdict != Oversized && w.CPU.Verdict != Undersized {
		return 0
	}
	return (w.CPU.Reserved - *w.CPU.Advice) * float64(w.Containers)
}

// FreeMemory is FreeCores for memory, in bytes.
func (w *Row) FreeMemory() float64 {
	if w.Memory.Advice == nil || w.Memory.Verdict != Oversized && w.Memory.Verdict != Undersized {
		return 0
	}
	return (float64(w.Memory.Reserved) - float64(*w.Memory.Advice)) * float64(w.Containers)
}

// Sum adds up what services should reserve less, and more. Each is counted by its
// Verdict.
func Sum(services []Row) Sums {
	var s Sums
	for i := range services {
		w := &services[i]
		switch w.Verdict {
		case Oversized:
			s.Oversized++
		case Undersized:
			s.Undersized++
		case StillLearning:
			s.Learning++
		case NotReserved:
			s.Unreserved++
		case InBand:
			s.InBand++
		}
		cores, memory := w.FreeCores(), w.FreeMemory()
		s.FreeCores += max(cores, 0)
		s.NeedCores += max(-cores, 0)
		s.FreeMemory += uint64(max(memory, 0))
		s.NeedMemory += uint64(max(-memory, 0))
	}
	return s
}
