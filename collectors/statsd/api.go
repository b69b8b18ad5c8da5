package statsd

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/admin"
)

// Top says who sends how much. It is the answer of GET /v1/statsd/top.
type Top struct {
	Time     time.Time `json:"time"`
	Upstream string    `json:"upstream"`
	Totals   Totals    `json:"totals"`
	Senders  []Sender  `json:"senders"` // those that send most first
}

// Totals are counts of lines since the relay was started, where nothing else is
// said. LinesIn is the sum of LinesOut, all of Dropped, and Waiting.
type Totals struct {
	LinesIn   uint64  `json:"lines_in"`
	LinesOut  uint64  `json:"lines_out"`
	BytesIn   uint64  `json:"bytes_in"`
	Rate      float64 `json:"lines_per_second"`
	Waiting   uint64  `json:"waiting"` // for the upstream
	Dropped   Drops   `json:"dropped"`
	Kernel    uint64  `json:"kernel_dropped_datagrams"`
	Truncated uint64  `json:"truncated_datagrams"`
	Untagged  uint64  `json:"untagged"`
}

// Drops are lines that were not passed on, by reason.
type Drops struct {
	Malformed   uint64 `json:"malformed"`
	TooLong     uint64 `json:"too_long"`
	RateLimited uint64 `json:"rate_limited"`
	Truncated   uint64 `json:"truncated"`
	Buffer      uint64 `json:"buffer"` // for want of room while the upstream was away or slow
	Send        uint64 `json:"send"`   // refused by the kernel or the upstream
}

// Sum is how many lines were dropped in all.
func (d Drops) Sum() uint64 {
	return d.Malformed + d.TooLong + d.RateLimited + d.Truncated + d.Buffer + d.Send
}

// Sender is one container, several that share a network, or all that cannot be
// told apart.
type Sender struct {
	Container   string   `json:"container"`              // its name, or (host) or (unknown)
	ContainerID string   `json:"container_id,omitempty"` // of the one that has the network
	Lines       uint64   `json:"lines"`
	Bytes       uint64   `json:"bytes"`
	Datagrams   uint64   `json:"datagrams"`
	Rate        float64  `json:"lines_per_second"` // of the last ten seconds, about
	Malformed   uint64   `json:"malformed"`        // cut off ones, too
	TooLong     uint64   `json:"too_long"`
	RateLimited uint64   `json:"rate_limited"`
	Untagged    uint64   `json:"untagged"`
	Tags        []string `json:"tags"`
}

// Dropped is how many of the sender's lines were not passed on.
func (s Sender) Dropped() uint64 { return s.Malformed + s.TooLong + s.RateLimited }

// Top returns who sends how much.
func (s *Statsd) Top() Top {
	v, m := s.view.Load(), &s.meters
	st := v.stats()
	top := Top{Time: time.Now(), Upstream: s.cfg.Upstream, Senders: []Sender{}, Totals: Totals{
		LinesIn: m.lines.Load(), LinesOut: st.Lines, BytesIn: m.bytes.Load(), Waiting: st.Waiting,
		Kernel: v.drops(), Truncated: m.cut.Load(), Untagged: m.untagged.Load(),
		Dropped: Drops{
			Malformed: m.malformed.Load(), TooLong: m.tooLong.Load(), RateLimited: m.rateLimited.Load(),
			Truncated: m.truncated.Load(), Buffer: st.Dropped, Send: st.Failed,
		},
	}}
	for _, o := range v.senders {
		row := senderOf(o)
		top.Totals.Rate += row.Rate
		if row.Lines > 0 {
			top.Senders = append(top.Senders, row)
		}
	}
	slices.SortStableFunc(top.Senders, func(a, b Sender) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(b.Lines, a.Lines), strings.Compare(a.Container, b.Container))
	})
	return top
}

func senderOf(o *origin) Sender {
	a := o.account
	row := Sender{
		Container: o.name, ContainerID: o.id, Tags: []string{},
		Lines: a.lines.Load(), Bytes: a.bytes.Load(), Datagrams: a.datagrams.Load(),
		Malformed: a.malformed.Load(), TooLong: a.tooLong.Load(), RateLimited: a.rateLimited.Load(), Untagged: a.untagged.Load(),
	}
	// A rate that fades for ever is none.
	if rate := math.Float64frombits(a.rate.Load()); rate >= 0.01 {
		row.Rate = math.Round(rate*100) / 100
	}
	for _, t := range o.tags {
		row.Tags = append(row.Tags, t.text)
	}
	return row
}

// The verdicts of an agent.Reason that the relay gives.
const (
	verdictTagged  = "tagged"
	verdictPassed  = "untagged"
	verdictIgnored = "ignored"
)

// errNotFound is for a container that is not there.
var errNotFound = errors.New("no container of this host matches")

// Explain says what is put into the lines of a container (by ID, name or
// beginning of an ID), and why.
func (s *Statsd) Explain(id string) []agent.Reason {
	reasons, err := s.explain(id)
	if err != nil {
		return []agent.Reason{{Subject: "metrics", Verdict: verdictIgnored, Rule: err.Error(), Fix: "see `berth containers`"}}
	}
	return reasons
}

func (s *Statsd) explain(ref string) ([]agent.Reason, error) {
	v, t := s.view.Load(), s.table.Load()
	found := v.snapshot.Find(ref)
	if len(found) != 1 {
		return nil, fmt.Errorf("find container %q: %w", ref, errNotFound)
	}
	c := found[0]
	o := t.byID[c.ID]
	if o == nil {
		return []agent.Reason{{Subject: "metrics", Verdict: verdictIgnored, Rule: "it does not run"}}, nil
	}
	var reasons []agent.Reason
	over := make(map[*origin][]string)
	for p, at := range t.places {
		if at == o || strings.HasPrefix(at.name, o.name+"+") && at.id == o.id {
			over[at] = append(over[at], p.String())
		}
	}
	for at, from := range over {
		slices.Sort(from)
		reasons = append(reasons, s.reason(at, "from "+strings.Join(slices.Compact(from), " and ")))
	}
	if len(over) == 0 {
		reasons = append(reasons, agent.Reason{
			Subject: "metrics over UDP", Verdict: verdictPassed,
			Rule: fmt.Sprintf("network mode %s: it has no address of its own on a bridge network, and senders are not guessed", c.NetworkMode),
			Fix:  s.mountHint(),
		})
	}
	if s.cfg.Socket != "" {
		reasons = append(reasons, s.reason(o, "to "+s.cfg.Socket))
	}
	return reasons, nil
}

func (s *Statsd) mountHint() string {
	if s.cfg.Socket == "" {
		return "set statsd.socket, and mount its folder into the container"
	}
	return "mount the folder of " + s.cfg.Socket + " into the container, and send to the socket"
}

// reason says what is put into lines that come in one way.
func (s *Statsd) reason(o *origin, way string) agent.Reason {
	r := agent.Reason{Subject: "metrics " + way, Verdict: verdictTagged}
	var texts []string
	for _, t := range o.tags {
		texts = append(texts, t.text)
	}
	switch {
	case s.cfg.Mode == ModeCID && len(o.cid) > 0:
		r.Rule = "statsd.mode: cid: lines get the field c:" + o.id
	case s.cfg.Mode == ModeTags && len(o.tags) > 0:
		r.Rule = "lines get the tags " + strings.Join(texts, ", ")
	case s.cfg.Mode == ModeTags:
		r.Verdict, r.Rule = verdictPassed, "the container has none of statsd.container_tags"
		r.Fix = "give it the labels com.datadoghq.tags.service and com.datadoghq.tags.env"
	default:
		r.Verdict, r.Rule = verdictPassed, "statsd.mode: "+string(s.cfg.Mode)
	}
	if strings.Contains(o.name, "+") {
		r.Rule += " (" + strings.ReplaceAll(o.name, "+", " and ") + " share one network: what they have in common)"
	}
	if n := o.account.lines.Load(); n > 0 {
		r.Rule += fmt.Sprintf("; %d lines so far", n)
	}
	return r
}

// ServeHTTP answers below /v1/statsd/: top, and explain?container=….
func (s *Statsd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	what := strings.TrimPrefix(r.URL.Path, "/v1/"+Name+"/")
	switch {
	case r.Method != http.MethodGet:
		admin.WriteError(w, http.StatusMethodNotAllowed, errors.New("only GET is answered here"))
	case what == "top":
		admin.WriteJSON(w, s.Top())
	case what == "explain":
		reasons, err := s.explain(r.URL.Query().Get("container"))
		if err != nil {
			admin.WriteError(w, http.StatusNotFound, err)
			return
		}
		admin.WriteJSON(w, reasons)
	default:
		admin.WriteError(w, http.StatusNotFound, fmt.Errorf("there is nothing at %s", r.URL.Path))
	}
}
