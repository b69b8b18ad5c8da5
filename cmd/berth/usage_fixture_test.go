package main

import (
	"bytes"
	"encoding/json"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/berthd/berth/collectors/usage"
)

// The moment of the fixture: a Tuesday afternoon.
var fixtureNow = time.Date(2026, 3, 3, 14, 20, 0, 0, time.UTC)

// load is what a service of the fixture uses in an hour, in cores: an even part,
// a part by the hour of the day, and a batch job at 02:00 and 03:00.
type fixtureLoad struct {
	even, daily, nightly float64
	weekend              float64 // share of daily on Saturdays and Sundays
	grows                float64 // from the first to the last day, as a share
}

// noise returns a number from -1 to 1 that is always the same.
func noise(name string, hour int) float64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	h.Write([]byte{byte(hour), byte(hour >> 8), 7})
	return float64(h.Sum64()>>11)/(1<<52) - 1
}

// hours makes a series for a service which has been known for some hours.
func (l fixtureLoad) hours(name string, known int, containers, reserved, throttled, memory float64) *usage.Series {
	start := fixtureNow.Truncate(time.Hour).Add(-usage.HistoryHours * time.Hour)
	s := &usage.Series{Start: start}
	for i := range usage.HistoryHours + 1 {
		at := start.Add(time.Duration(i) * time.Hour)
		if i < usage.HistoryHours-known || name == "search" && i >= 60 && i < 66 { // the host was down
			for _, v := range []*usage.Values{&s.Containers, &s.Reserved, &s.Used, &s.P90, &s.P95, &s.Max, &s.Throttled, &s.Memory, &s.OOMKills} {
				*v = append(*v, math.NaN())
			}
			continue
		}
		day := 0.5 - 0.5*math.Cos(2*math.Pi*float64(at.Hour()-3)/24)
		if d := at.Weekday(); d == time.Saturday || d == time.Sunday {
			day *= l.weekend
		}
		used := l.even + l.daily*day
		if h := at.Hour(); h == 2 || h == 3 {
			used += l.nightly
		}
		used *= 1 + l.grows*float64(i)/usage.HistoryHours + 0.08*noise(name, i)
		ratio := throttled * day * (1 + 0.3*noise(name+"t", i))
		s.Containers = append(s.Containers, containers)
		s.Reserved = append(s.Reserved, reserved)
		s.Used = append(s.Used, used)
		s.P90 = append(s.P90, used*1.15)
		s.P95 = append(s.P95, used*1.25)
		s.Max = append(s.Max, used*1.6)
		s.Throttled = append(s.Throttled, ratio)
		s.Memory = append(s.Memory, memory*(0.9+0.1*day))
		kills := 0.0
		if name == "cache" && i%70 == 41 {
			kills = 1
		}
		s.OOMKills = append(s.OOMKills, kills)
	}
	return s
}

func ptr[T any](v T) *T { return &v }

const mebi = 1 << 20

// fixtureReport is a host with a bit of everything.
func fixtureReport() *usage.Report {
	r := &usage.Report{
		At: fixtureNow, Node: "i-0a1b2c3d4e5f60718", Since: ptr(fixtureNow.Truncate(time.Hour).Add(-usage.HistoryHours * time.Hour)),
		LearningHours: 24, Band: usage.Band{Low: -0.1, High: 0.6, HighShare: 0.5},
		Host: usage.HostUsage{
			Containers: 19, Unreserved: 1, Cores: 16, ReservedCores: 15.5, UsedCores: ptr(6.4), ContainerUsed: ptr(6.21),
			Memory: 64 << 30, ReservedMemory: 27 << 30, UsedMemory: 18 << 30,
		},
	}
	add := func(name string, n int, load fixtureLoad, known int, throttled float64, row usage.Row) {
		row.Service, row.Environment, row.InstanceType, row.Containers = name, "prod", "m5.4xlarge", n
		row.HistoryHours = float64(known)
		row.Hours = load.hours(name, known, float64(n), row.CPU.Reserved, throttled, float64(row.Memory.Max))
		u := row.Hours.Used
		row.CPU.Hourly = u[len(u)-2]
		row.CPU.Used = u[len(u)-1]
		row.CPU.P50 = row.CPU.Hourly * 0.7
		for i := range u {
			if !math.IsNaN(u[i]) {
				row.CPU.P95 = max(row.CPU.P95, u[i]*1.1)
				row.CPU.Max = max(row.CPU.Max, row.Hours.Max[i])
			}
		}
		if throttled > 0 {
			row.CPU.Throttled = ptr(row.Hours.Throttled[len(u)-2])
		}
		if row.CPU.Source != usage.SourceNone {
			row.CPU.LyingFactor = ptr(row.CPU.Reserved - row.CPU.Hourly)
		}
		row.Memory.Used, row.Memory.P50, row.Memory.P95 = row.Memory.Max*9/10, row.Memory.Max*8/10, row.Memory.Max*95/100
		if row.Memory.Source != usage.SourceNone {
			row.Memory.LyingFactor = ptr(float64(row.Memory.Reserved) - float64(row.Memory.Used))
		}
		row.Verdict = row.CPU.Verdict
		if m := row.Memory.Verdict; m == usage.Undersized || m == usage.Oversized && row.Verdict != usage.Undersized {
			row.Verdict = m
		}
		r.Services = append(r.Services, row)
		for i := range n {
			c := row
			c.Hours = nil
			c.Containers, c.Container = 1, name+"-"+string(rune('1'+i))
			c.ContainerID = string(bytes.Repeat([]byte{"0123456789abcdef"[len(r.Containers)%16]}, 64))
			c.CPU.Hourly *= 1 + 0.1*float64(i)
			if c.CPU.LyingFactor != nil {
				c.CPU.LyingFactor = ptr(c.CPU.Reserved - c.CPU.Hourly)
			}
			r.Containers = append(r.Containers, c)
		}
	}
	fine := []usage.Reason{{Code: usage.CodeWithin, Why: "the lying factor is in the band"}}
	memory := func(reserved, most uint64) usage.Memory {
		return usage.Memory{Reserved: reserved * mebi, Source: usage.SourceSoft, Max: most * mebi, Verdict: usage.InBand, Reasons: fine}
	}
	day := fixtureNow.Truncate(24 * time.Hour)

	add("api", 4, fixtureLoad{even: 0.2, daily: 0.6, weekend: 0.5}, 192, 0, usage.Row{
		CPU:    usage.CPU{Reserved: 1, Source: usage.SourceECS, Verdict: usage.InBand, Advice: ptr(1.0), Decided: ptr(day.Add(-10 * time.Hour)), Reasons: fine},
		Memory: memory(1024, 830),
	})
	cache := memory(512, 511)
	cache.Limit, cache.OOMKills, cache.Verdict, cache.Advice = 512*mebi, 3, usage.Undersized, ptr(uint64(616*mebi))
	cache.Source = usage.SourceLimit
	cache.Reasons = []usage.Reason{{Code: usage.CodeOOM, Why: "the out-of-memory killer came 3 times in 8 days, at a limit of 512 MiB"}}
	add("cache", 2, fixtureLoad{even: 0.15, daily: 0.1, weekend: 0.9}, 192, 0, usage.Row{
		CPU: usage.CPU{Reserved: 0.5, Source: usage.SourceShares, Verdict: usage.InBand, Reasons: fine}, Memory: cache,
	})
	add("calc", 2, fixtureLoad{even: 0.04, daily: 0.1, weekend: 0.4}, 192, 0.24, usage.Row{
		Critical: true,
		CPU: usage.CPU{
			Reserved: 0.5, Source: usage.SourceCPUs, Limit: 0.5, Verdict: usage.Undersized, Advice: ptr(0.640625), Decided: ptr(day.Add(11 * time.Hour)),
			Reasons: []usage.Reason{
				{Code: usage.CodeThrottled, Why: "its quota stopped it in 23% of the active periods of the last hour, so that the mean hides what it needs"},
				{Code: usage.CodePeak, Why: "sized by the hour from Tue 11:00, raised because it was throttled in it"},
			},
		},
		Memory: memory(256, 200),
	})
	add("checkout", 3, fixtureLoad{even: 0.3, daily: 0.7, weekend: 1.1, grows: 0.25}, 192, 0, usage.Row{
		CPU: usage.CPU{
			Reserved: 0.5, Source: usage.SourceOwn, Verdict: usage.Undersized, Advice: ptr(1.390625), Decided: ptr(day.Add(14 * time.Hour)),
			Reasons: []usage.Reason{
				{Code: usage.CodeBelow, Why: "the lying factor has been below -0.1 for 9 h: it lives on what others have reserved"},
				{Code: usage.CodePeak, Why: "sized by the hour from Tue 14:00, the highest of 192"},
			},
		},
		Memory: memory(768, 640),
	})
	add("legacy-cron", 1, fixtureLoad{even: 0.02, nightly: 0.3, weekend: 1}, 150, 0, usage.Row{
		CPU:    usage.CPU{Source: usage.SourceNone, Verdict: usage.NotReserved, Advice: ptr(0.4375), Reasons: []usage.Reason{{Code: usage.CodeNone, Why: "it reserves nothing, so that no scheduler counts on it"}}},
		Memory: usage.Memory{Source: usage.SourceNone, Max: 90 * mebi, Verdict: usage.NotReserved, Advice: ptr(uint64(104 * mebi))},
	})
	add("mailer", 2, fixtureLoad{even: 0.008, daily: 0.01, weekend: 0.2}, 192, 0, usage.Row{
		CPU: usage.CPU{
			Reserved: 0.25, Source: usage.SourceShares, Verdict: usage.Oversized, Advice: ptr(0.0234375), Decided: ptr(day.Add(-34 * time.Hour)),
			Reasons: []usage.Reason{{Code: usage.CodeAbove, Why: "the lying factor has been above half of the reservation for 8 days"}},
		},
		Memory: memory(128, 100),
	})
	add("nightly-report", 1, fixtureLoad{even: 0.01, nightly: 1.6, weekend: 1}, 192, 0, usage.Row{
		CPU: usage.CPU{
			Reserved: 2, Source: usage.SourceNomad, Verdict: usage.InBand, Advice: ptr(1.9921875), Decided: ptr(day.Add(2 * time.Hour)),
			Reasons: []usage.Reason{{Code: usage.CodePeak, Why: "the hour from 02:00 needs it, though the mean of a day does not"}},
		},
		Memory: memory(2048, 1900),
	})
	add("recommend", 1, fixtureLoad{even: 0.2, daily: 0.1, weekend: 1}, 5, 0, usage.Row{
		CPU:    usage.CPU{Reserved: 1, Source: usage.SourceMarathon, Verdict: usage.StillLearning, Reasons: []usage.Reason{{Code: usage.CodeShort, Why: "5 of 24 hours are known"}}},
		Memory: usage.Memory{Reserved: 2048 * mebi, Source: usage.SourceMarathon, Max: 300 * mebi, Verdict: usage.StillLearning},
	})
	search := memory(4096, 700)
	search.Verdict, search.Advice = usage.Oversized, ptr(uint64(808*mebi))
	search.Reasons = []usage.Reason{{Code: usage.CodeAbove, Why: "the highest of 8 days is 700 MiB"}}
	add("search", 3, fixtureLoad{even: 0.1, daily: 0.35, weekend: 0.6}, 192, 0, usage.Row{
		CPU: usage.CPU{
			Reserved: 2, Source: usage.SourceECS, Verdict: usage.Oversized, Advice: ptr(0.5625), Decided: ptr(day.Add(-82 * time.Hour)),
			Reasons: []usage.Reason{
				{Code: usage.CodeAbove, Why: "the lying factor has been above +0.6 for 8 days"},
				{Code: usage.CodePeak, Why: "sized by the hour from Fri 14:00, the highest of 186"},
			},
		},
		Memory: search,
	})
	r.Sums = usage.Sum(r.Services)
	// As it comes from the daemon: series have four digits.
	raw, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	r = new(usage.Report)
	if err := json.Unmarshal(raw, r); err != nil {
		panic(err)
	}
	return r
}

// fixtureFile writes a report to where --from can read it.
func fixtureFile(t *testing.T, r *usage.Report) string {
	t.Helper()
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "usage.json")
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
