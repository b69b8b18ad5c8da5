package usage

import (
	"slices"
	"time"

	"github.com/berthd/berth/agent"
)

// mostEnded is how many ended runs are remembered with what they used.
const mostEnded = 512

// EndedRun is what one run of a container used from its start to its exit.
type EndedRun struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Service     string    `json:"service"`
	Environment string    `json:"environment,omitempty"`
	StartedAt   time.Time `json:"started_at"` // by the engine's clock
	EndedAt     time.Time `json:"ended_at"`
	ExitCode    int       `json:"exit_code"`
	OOMKilled   bool      `json:"oom_killed,omitempty"` // the engine says so, or the kernel counted a kill

	// Measured is whether the figures were read when the process exited. If not,
	// they are those of the last interval before, or none.
	Measured      bool    `json:"measured"`
	CPUSeconds    float64 `json:"cpu_seconds"`
	ReservedCores float64 `json:"reserved_cores,omitempty"`
	ThrottledTime float64 `json:"throttled_seconds,omitempty"`
	OOMKills      uint64  `json:"oom_kills,omitempty"`
	NetRx         uint64  `json:"network_receive_bytes,omitempty"`
	NetTx         uint64  `json:"network_transmit_bytes,omitempty"`
	IORead        uint64  `json:"io_read_bytes,omitempty"`
	IOWrite       uint64  `json:"io_written_bytes,omitempty"`
}

// noteEnded remembers a run; cl is nil for one that was never seen.
func (s *sampler) noteEnded(d *agent.DeadRun, subject *Subject, reservation *Reservation, cl *cell) {
	c := d.Container
	e := EndedRun{
		ID: c.ID, Name: c.Name, Service: subject.Service, Environment: subject.Environment,
		StartedAt: c.StartedAt, EndedAt: d.FinishedAt, ExitCode: c.ExitCode, OOMKilled: c.OOMKilled,
		ReservedCores: reservation.Cores,
	}
	if cl != nil {
		total := &cl.base.total
		e.Measured = cl.measured && cl.m.Final
		e.CPUSeconds, e.ThrottledTime = total.CPU.Seconds(), total.ThrottledTime.Seconds()
		e.OOMKills, e.OOMKilled = total.OOMKills, e.OOMKilled || total.OOMKills > 0
		e.NetRx, e.NetTx, e.IORead, e.IOWrite = total.NetRx, total.NetTx, total.IORead, total.IOWrite
	}
	if len(s.endings) >= mostEnded {
		s.endings = slices.Delete(s.endings, 0, mostEnded/4)
	}
	s.endings = append(s.endings, e)
}

// Ended returns the runs that have ended since berth started, the latest 384 at
// least, oldest first, with what they used.
func (u *Usage) Ended() []EndedRun {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sampler == nil {
		return []EndedRun{}
	}
	return append([]EndedRun{}, u.sampler.endings...)
}
