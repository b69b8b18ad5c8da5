package aws

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/berthd/berth/agent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answer is shaped as the ECS agent writes it (ecs-agent/introspection/v1).
const answer = `{"Tasks":[
 {"Arn":"arn:aws:ecs:eu-west-1:1:task/prod/a","DesiredStatus":"RUNNING","KnownStatus":"RUNNING","Family":"calc","Version":"3","Containers":[
  {"DockerId":"aaaa","DockerName":"ecs-calc","Name":"calc","Ports":[{"ContainerPort":8080,"Protocol":"tcp"}],
   "Networks":[{"NetworkMode":"awsvpc","IPv4Addresses":["10.0.3.7"]}]}]},
 {"Arn":"arn:aws:ecs:eu-west-1:1:task/prod/b","Family":"web","Version":"1","Containers":[
  {"DockerId":"bbbb","Name":"web","Networks":[{"NetworkMode":"bridge","IPv4Addresses":["172.17.0.9"]}]}]}]}`

func TestIntrospection(t *testing.T) {
	var requests atomic.Int32
	ready := make(chan struct{}) // the agent knows the task from then on
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.URL.Path != "/v1/tasks" {
			t.Errorf("asked for %s", r.URL)
		}
		select {
		case <-ready:
			_, _ = io.WriteString(w, answer)
		default:
			_, _ = io.WriteString(w, `{"Tasks":[]}`)
		}
	}))
	defer srv.Close()
	log := slog.New(slog.DiscardHandler)
	i := NewIntrospection(srv.URL+"/", agent.Env{Log: log, Health: agent.NewHealth(log)})

	store := agent.NewStore()
	feed := store.Subscribe()
	defer feed.Close()
	ecs := map[string]string{taskLabel: "arn:aws:ecs:eu-west-1:1:task/prod/a"}
	calc := &agent.Container{ID: "aaaa", State: agent.StateRunning, NetworkMode: "container:pause", Labels: ecs}
	web := &agent.Container{ID: "bbbb", State: agent.StateRunning, NetworkMode: "default", Labels: ecs}
	plain := &agent.Container{ID: "cccc", State: agent.StateRunning, NetworkMode: "none"}
	ended := &agent.Container{ID: "dddd", State: agent.StateExited, NetworkMode: "none", Labels: ecs}

	learnt := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx, feed, func() { learnt <- struct{}{} }) }()

	// None of these has an address that only the agent knows: it is not asked.
	store.Publish(&agent.Snapshot{Seq: 1, Containers: []*agent.Container{web, plain, ended}})
	store.Publish(&agent.Snapshot{Seq: 2, Containers: []*agent.Container{calc, web, plain, ended}})
	close(ready)
	<-learnt
	if a, ok := i.Address(calc); !ok || a != netip.MustParseAddr("10.0.3.7") {
		t.Errorf("address %v, %v", a, ok)
	}
	if a, ok := i.Address(web); ok {
		t.Errorf("%v is the engine's own address, and not for us to tell", a)
	}
	asked := requests.Load()
	store.Publish(&agent.Snapshot{Seq: 3, Containers: []*agent.Container{calc, web, plain, ended}})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := requests.Load(); n != asked {
		t.Errorf("%d requests after all was known", n-asked)
	}
}

func TestIntrospectionErrors(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"not there":    {http.StatusNotFound, "", "404"},
		"not JSON":     {http.StatusOK, "<html>", "read the ECS agent's answer"},
		"bad address":  {http.StatusOK, strings.Replace(answer, "10.0.3.7", "10.0.3", 1), "container aaaa"},
		"cut short":    {http.StatusOK, answer[:200], "read the ECS agent's answer"},
		"not our type": {http.StatusOK, `{"Tasks":{}}`, "read the ECS agent's answer"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			}))
			defer srv.Close()
			log := slog.New(slog.DiscardHandler)
			i := NewIntrospection(srv.URL, agent.Env{Log: log, Health: agent.NewHealth(log)})
			if _, err := i.ask(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one that says %q", err, test.want)
			}
		})
	}
}
