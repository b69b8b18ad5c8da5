package usage

import (
	"math"
	"strings"
	"testing"

	"github.com/berthd/berth/agent"
)

// TestPitfall_usage08_SharesMeanWhatTheirSetterMeant is the matrix of who started a container, and what it says.
func TestPitfall_usage08_SharesMeanWhatTheirSetterMeant(t *testing.T) {
	ecs := map[string]string{"com.amazonaws.ecs.task-arn": "arn:aws:ecs:eu-west-1:1:task/prod/7", "com.amazonaws.ecs.task-definition-family": "calc", "com.amazonaws.ecs.container-name": "web"}
	compose := map[string]string{"com.docker.compose.project": "shop", "com.docker.compose.service": "calc"}
	nomad := map[string]string{"com.hashicorp.nomad.alloc_id": "5e6f", "com.hashicorp.nomad.job_name": "calc", "com.hashicorp.nomad.task_name": "web"}
	with := func(m map[string]string, kv ...string) map[string]string {
		out := make(map[string]string)
		for k, v := range m {
			out[k] = v
		}
		for i := 0; i < len(kv); i += 2 {
			out[kv[i]] = kv[i+1]
		}
		return out
	}
	const mib = 1 << 20
	for _, tc := range []struct {
		name        string
		labels, env map[string]string
		res         agent.Resources
		want        Reservation
		service     string
		refused     string // what is refused, by commas
	}{
		{"plain, nothing said", nil, nil, agent.Resources{}, Reservation{0, "none", 0, "none", 0, 0}, "app", ""},
		{"plain, --cpus", nil, nil, agent.Resources{NanoCPUs: 1.5e9}, Reservation{1.5, "cpus", 0, "none", 1.5, 0}, "app", ""},
		{"plain, --cpu-quota", nil, nil, agent.Resources{CPUQuota: 50_000}, Reservation{0.5, "quota", 0, "none", 0.5, 0}, "app", ""},
		{"plain, --cpu-quota and --cpu-period", nil, nil, agent.Resources{CPUQuota: 50_000, CPUPeriod: 25_000}, Reservation{2, "quota", 0, "none", 2, 0}, "app", ""},
		{"plain, no quota", nil, nil, agent.Resources{CPUQuota: -1}, Reservation{0, "none", 0, "none", 0, 0}, "app", ""},
		{"plain, --cpu-shares", nil, nil, agent.Resources{CPUShares: 512}, Reservation{0.5, "shares", 0, "none", 0, 0}, "app", ""},
		{"plain, 2 shares", nil, nil, agent.Resources{CPUShares: 2}, Reservation{2.0 / 1024, "shares", 0, "none", 0, 0}, "app", ""},
		{"plain, --cpus before shares, and cpuset a limit", nil, nil, agent.Resources{NanoCPUs: 3e9, CPUShares: 512, Cpuset: "0-1"}, Reservation{3, "cpus", 0, "none", 2, 0}, "app", ""},
		{"plain, --memory", nil, nil, agent.Resources{Memory: 64 * mib}, Reservation{0, "none", 64 * mib, "limit", 0, 64 * mib}, "app", ""},
		{"plain, --memory-reservation", nil, nil, agent.Resources{Memory: 64 * mib, MemoryLow: 32 * mib}, Reservation{0, "none", 32 * mib, "soft", 0, 64 * mib}, "app", ""},

		{"own label", map[string]string{"berth.cpu": "250m", "berth.memory": "96MiB"}, nil, agent.Resources{NanoCPUs: 2e9, Memory: 64 * mib}, Reservation{0.25, "berth", 96 * mib, "berth", 2, 64 * mib}, "app", ""},
		{"own variable", nil, map[string]string{"BERTH_CPU": "1.5", "BERTH_MEMORY": "1GiB"}, agent.Resources{}, Reservation{1.5, "berth", 1 << 30, "berth", 0, 0}, "app", ""},
		{"a label before a variable", map[string]string{"berth.cpu": "2"}, map[string]string{"BERTH_CPU": "1"}, agent.Resources{}, Reservation{2, "berth", 0, "none", 0, 0}, "app", ""},
		{"own label before all others", with(ecs, "berth.cpu", "3"), map[string]string{"MARATHON_APP_RESOURCE_CPUS": "1"}, agent.Resources{CPUShares: 256}, Reservation{3, "berth", 0, "none", 0, 0}, "calc/web", ""},
		{"lots of cores", map[string]string{"berth.cpu": "lots"}, nil, agent.Resources{NanoCPUs: 1e9}, Reservation{1, "cpus", 0, "none", 1, 0}, "app", "label berth.cpu"},
		{"lots of memory", map[string]string{"berth.cpu": "1", "berth.memory": "512"}, nil, agent.Resources{Memory: mib}, Reservation{1, "berth", mib, "limit", 0, mib}, "app", "label berth.memory"},
		{"no cores", map[string]string{"berth.cpu": "0"}, nil, agent.Resources{}, Reservation{0, "none", 0, "none", 0, 0}, "app", "label berth.cpu"},
		{"negative cores", map[string]string{"berth.cpu": "-1"}, nil, agent.Resources{}, Reservation{0, "none", 0, "none", 0, 0}, "app", "label berth.cpu"},
		{"no number of cores", map[string]string{"berth.cpu": "NaN"}, map[string]string{"BERTH_MEMORY": "lots"}, agent.Resources{}, Reservation{0, "none", 0, "none", 0, 0}, "app", "label berth.cpu,variable BERTH_MEMORY"},
		{"cores without bounds", map[string]string{"berth.cpu": "Inf"}, nil, agent.Resources{}, Reservation{0, "none", 0, "none", 0, 0}, "app", "label berth.cpu"},
		{"too many cores", map[string]string{"berth.cpu": "1e9"}, nil, agent.Resources{}, Reservation{0, "none", 0, "none", 0, 0}, "app", "label berth.cpu"},

		{"marathon", nil, map[string]string{"MARATHON_APP_ID": "/prod/calc", "MARATHON_APP_RESOURCE_CPUS": "0.75", "MARATHON_APP_RESOURCE_MEM": "128.0"}, agent.Resources{CPUShares: 768, Memory: 128 * mib}, Reservation{0.75, "marathon", 128 * mib, "marathon", 0, 128 * mib}, "calc-prod", ""},
		{"marathon, shares alone", nil, map[string]string{"MARATHON_APP_ID": "/calc"}, agent.Resources{CPUShares: 1024}, Reservation{1, "shares", 0, "none", 0, 0}, "calc", ""},
		{"marathon, no number", nil, map[string]string{"MARATHON_APP_ID": "/calc", "MARATHON_APP_RESOURCE_CPUS": "x"}, agent.Resources{CPUShares: 1024}, Reservation{1, "shares", 0, "none", 0, 0}, "calc", "variable MARATHON_APP_RESOURCE_CPUS"},

		{"nomad, MHz", nomad, map[string]string{"NOMAD_CPU_LIMIT": "500", "NOMAD_MEMORY_LIMIT": "256"}, agent.Resources{CPUShares: 500, Memory: 256 * mib}, Reservation{0.2, "nomad", 256 * mib, "nomad", 0, 256 * mib}, "calc/web", ""},
		{"nomad, cores", nomad, map[string]string{"NOMAD_CPU_CORES": "2-3,7", "NOMAD_CPU_LIMIT": "7500"}, agent.Resources{CPUShares: 7500, Cpuset: "2-3,7"}, Reservation{3, "nomad", 0, "none", 3, 0}, "calc/web", ""},
		{"nomad, shares are no cores", nomad, nil, agent.Resources{CPUShares: 500}, Reservation{0, "none", 0, "none", 0, 0}, "calc/web", ""},
		{"nomad, no list of cores", nomad, map[string]string{"NOMAD_CPU_CORES": "3-2", "NOMAD_CPU_LIMIT": "2500"}, agent.Resources{}, Reservation{1, "nomad", 0, "none", 0, 0}, "calc/web", "variable NOMAD_CPU_CORES"},

		{"ecs", ecs, nil, agent.Resources{CPUShares: 256, Memory: 512 * mib, MemoryLow: 128 * mib}, Reservation{0.25, "ecs", 128 * mib, "soft", 0, 512 * mib}, "calc/web", ""},
		{"ecs, cpu 0", ecs, nil, agent.Resources{CPUShares: 2}, Reservation{0, "none", 0, "none", 0, 0}, "calc/web", ""},
		{"ecs, cpu 0 and a quota", ecs, nil, agent.Resources{CPUShares: 2, CPUQuota: 50_000, CPUPeriod: 100_000}, Reservation{0.5, "quota", 0, "none", 0.5, 0}, "calc/web", ""},
		{"ecs, the most", ecs, nil, agent.Resources{CPUShares: 262144}, Reservation{256, "ecs", 0, "none", 0, 0}, "calc/web", ""},

		{"compose, cpus", compose, nil, agent.Resources{NanoCPUs: 0.5e9, Memory: 256 * mib, MemoryLow: 64 * mib}, Reservation{0.5, "cpus", 64 * mib, "soft", 0.5, 256 * mib}, "shop/calc", ""},
		{"compose, cpu_shares", compose, nil, agent.Resources{CPUShares: 2048}, Reservation{2, "shares", 0, "none", 0, 0}, "shop/calc", ""},
	} {
		c := &agent.Container{ID: someID, Name: "x", Image: "registry:5000/team/app:1.2@sha256:00", Labels: tc.labels, Env: tc.env, Resources: tc.res}
		got, refused := claims(c, 2500)
		if got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
		var subjects []string
		for _, r := range refused {
			subjects = append(subjects, r.subject)
		}
		if got := strings.Join(subjects, ","); got != tc.refused {
			t.Errorf("%s: got %q refused, want %q", tc.name, got, tc.refused)
		}
		if s, _ := identify(c, "", ""); s.Service != tc.service {
			t.Errorf("%s: got the service %q, want %q", tc.name, s.Service, tc.service)
		}
	}
}

func TestPitfall_usage07_NoReservationFromWeights(t *testing.T) {
	// What the kernel has as cpu.weight of 1024 shares is 39 or 100, by the
	// runtime's version. What was asked for is what the engine says.
	c := &agent.Container{ID: someID, Resources: agent.Resources{CPUShares: 1024}}
	if r, _ := claims(c, 0); r.Cores != 1 {
		t.Errorf("got %v cores, want 1", r.Cores)
	}
	var f files
	f.dirs = dirs{unified: "/x", cpu: "/y", cpuacct: "/z", memory: "/m", blkio: "/b"}
	for i := range fileCount {
		if name := f.path("/proc", i); strings.Contains(name, "weight") || strings.Contains(name, "shares") {
			t.Errorf("%s is read", name)
		}
	}
}

func TestNomadWithoutClockRate(t *testing.T) {
	c := &agent.Container{ID: someID, Env: map[string]string{"NOMAD_ALLOC_ID": "5e6f", "NOMAD_CPU_LIMIT": "500"}}
	r, refused := claims(c, 0)
	if r.Cores != 0 || r.CPUSource != SourceNone || len(refused) != 1 || !strings.Contains(refused[0].fix, "usage.core_mhz") {
		t.Errorf("got %+v, %+v, want none reserved, and what to configure", r, refused)
	}
}

func TestIdentify(t *testing.T) {
	c := &agent.Container{ID: someID, Name: "web-1", Image: "calc", Labels: map[string]string{"berth.critical": "true"}, Env: map[string]string{"BERTH_ENVIRONMENT": "stage"}}
	got, refused := identify(c, "prod", "m5.large")
	if want := (Subject{someID, "web-1", "calc", "stage", "m5.large", true}); got != want || len(refused) != 0 {
		t.Errorf("got %+v, %v, want %+v", got, refused, want)
	}
	c.Labels["berth.critical"] = "very"
	if got, refused = identify(c, "prod", ""); got.Critical || len(refused) != 1 {
		t.Errorf("got %+v, %v, want one refusal", got, refused)
	}
	for _, tc := range []struct {
		labels               map[string]string
		service, environment string
	}{
		{map[string]string{datadogService: "pay", datadogEnvironment: "qa", "com.docker.compose.project": "shop", "com.docker.compose.service": "x"}, "pay", "qa"},
		{map[string]string{datadogService: "pay", datadogEnvironment: "qa", labelService: "own", labelEnvironment: "dev"}, "own", "dev"},
	} {
		if s, _ := identify(&agent.Container{Image: "calc", Labels: tc.labels}, "prod", ""); s.Service != tc.service || s.Environment != tc.environment {
			t.Errorf("%v: got %s in %s, want %s in %s", tc.labels, s.Service, s.Environment, tc.service, tc.environment)
		}
	}
	for ref, want := range map[string]string{"calc": "calc", "calc:1": "calc", "a/b/calc@sha256:0": "calc", "r:5000/calc": "calc", "": "unknown"} {
		if got := serviceOf(&agent.Container{Image: ref}); got != want {
			t.Errorf("%q: got %q, want %q", ref, got, want)
		}
	}
}

func TestParseCores(t *testing.T) {
	for in, want := range map[string]float64{"1": 1, "0.5": 0.5, "250m": 0.25, " 2 ": 2, ".5": 0.5, "8192": 8192} {
		if got, err := parseCores(in); got != want || err != nil {
			t.Errorf("%q: got %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "m", "lots", "0", "0m", "-1", "+1", "1e3", "0x1", "1_0", "Inf", "NaN", "8193", "1,5", "1.2.3", strings.Repeat("9", 400)} {
		got, err := parseCores(in)
		if err == nil {
			t.Errorf("%q: got %v, want an error", in, got)
		} else if len(err.Error()) > 100 {
			t.Errorf("got an error of %d bytes", len(err.Error()))
		}
		if math.IsNaN(got) || math.IsInf(got, 0) {
			t.Errorf("%q: got %v beside the error", in, got)
		}
	}
}
