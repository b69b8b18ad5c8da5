package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"

	"github.com/berthd/berth/test/apps"
	"github.com/berthd/berth/test/apps/portal"
)

// srv returns the name of a service's SRV records.
func (s *stage) srv(service string) string { return "_" + service + "._tcp." + s.domain + "." }

// names starts the services and waits for their records.
func (s *stage) names(ctx context.Context) error {
	s.title("Containers get names")
	for _, app := range []string{apps.Calc, apps.Time} {
		c, err := s.start(ctx, app, spec{
			app: app, args: []string{"-metrics=bare"},
			labels: serviceLabels(app, map[string]string{"SERVICE_8080_NAME": app}),
		})
		if err != nil {
			return err
		}
		took, answer, err := s.await(ctx, c, "start", s.srv(app), func(targets []string) bool { return len(targets) == 1 })
		if err != nil {
			return err
		}
		s.starts.add(took)
		s.say("docker run -p 8080 --label SERVICE_8080_NAME=%s …   %s after its start:", app, ms(took))
		s.show("%s SRV → %s", strings.TrimSuffix(s.srv(app), "."), answer[0])
		if app == apps.Calc {
			s.calc = c
		}
	}
	return nil
}

// together shows a third container that finds the two by DNS alone.
func (s *stage) together(ctx context.Context) error {
	s.title("They find each other")
	if err := s.startPortal(ctx); err != nil {
		return err
	}
	var ans portal.Answer
	err := s.until(ctx, "the portal answers a request with the help of both", func() (err error) {
		ans, err = s.ask(ctx, http.StatusOK)
		return err
	})
	if err != nil {
		return err
	}
	if ans.Calc.Sum != 42 || len(ans.Found) != 2 {
		return fmt.Errorf("the portal answered %+v: want the sum 42 and two services found", ans)
	}
	if s.bind != nil {
		s.say("The portal, on the host this time, knows no addresses: its only resolver is BIND, at %s.", s.server)
	} else {
		s.say("The portal knows no addresses: its only resolver is berth, at %s.", s.gateway)
	}
	for _, f := range ans.Found {
		s.show("%s found at %s (look-up %s)", strings.TrimSuffix(f.Name, "."), f.Used, f.Lookup)
	}
	s.show("19 + 23 = %d, says calc; it is %s, says time", ans.Calc.Sum, ans.Time.Now.Format(time.TimeOnly))
	return nil
}

// startPortal starts the portal: in a container that asks berth, or on the host,
// from where BIND can be asked.
func (s *stage) startPortal(ctx context.Context) (err error) {
	if s.bind != nil {
		s.portal, err = s.bind.startPortal(s.domain, s.server)
		return err
	}
	c, err := s.start(ctx, apps.Portal, spec{
		app: apps.Portal, args: []string{"-metrics=datadog"}, dns: s.gateway.String(), labels: serviceLabels(apps.Portal, nil),
	})
	if err != nil {
		return err
	}
	s.portal, err = s.address(ctx, c)
	return err
}

// goodbye stops calc.
func (s *stage) goodbye(ctx context.Context) error {
	s.title("A container that stops loses its name first")
	stopped := make(chan error, 1)
	go func() { stopped <- s.engine.ContainerStop(ctx, s.calc, container.StopOptions{}) }()
	took, _, err := s.await(ctx, s.calc, "kill", s.srv(apps.Calc), func(targets []string) bool { return len(targets) == 0 })
	if err != nil {
		return err
	}
	if err := <-stopped; err != nil {
		return fmt.Errorf("stop calc: %w", err)
	}
	s.stops.add(took)
	s.say("docker stop calc   its record was gone %s after the engine sent the signal.", ms(took))
	ans, err := s.ask(ctx, http.StatusBadGateway)
	if err != nil {
		return err
	}
	if ans.Calc != nil || ans.Time == nil || len(ans.Errors) != 1 {
		return fmt.Errorf("not so: only calc is missing: the portal answered %+v", ans)
	}
	s.show("the portal now says: no instance of calc; time still answers")
	return nil
}

// more starts two instances of one service.
func (s *stage) more(ctx context.Context) error {
	s.title("One name, several instances")
	for n := range 2 {
		c, err := s.start(ctx, fmt.Sprint("calc-", n+1), spec{app: apps.Calc, labels: map[string]string{"SERVICE_8080_NAME": "calc"}})
		if err != nil {
			return err
		}
		took, answer, err := s.await(ctx, c, "start", s.srv(apps.Calc), func(targets []string) bool { return len(targets) == n+1 })
		if err != nil {
			return err
		}
		s.starts.add(took)
		if n == 1 {
			s.say("Two more calcs, and DNS has both (in a new order each time):")
			for _, a := range answer {
				s.show("%s", a)
			}
		}
	}
	served := map[string]int{}
	err := s.until(ctx, "both instances answer", func() error {
		ans, err := s.ask(ctx, http.StatusOK)
		if err != nil {
			return err
		}
		served[ans.Calc.Instance]++
		if len(served) < 2 {
			return fmt.Errorf("only %v answered", served)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.show("the portal's requests were answered by %s", strings.Join(slices.Sorted(maps.Keys(served)), " and "))
	return nil
}

// health turns a health check off and on.
func (s *stage) health(ctx context.Context) error {
	s.title("Who is not healthy has no name")
	c, err := s.start(ctx, "sick", spec{
		app: apps.Sleeper, args: []string{"-http", ":8080", "-healthy"},
		labels: map[string]string{"SERVICE_8080_NAME": "sick"},
		health: &container.HealthConfig{Test: []string{"CMD", "/app", "health"}, Interval: 200 * time.Millisecond, Timeout: 5 * time.Second, Retries: 1},
	})
	if err != nil {
		return err
	}
	count := func(n int) func([]string) bool { return func(targets []string) bool { return len(targets) == n } }
	if _, _, err := s.await(ctx, c, "health_status: healthy", s.srv("sick"), count(1)); err != nil {
		return err
	}
	for _, state := range []struct {
		name  string
		count int
		what  string
	}{{"unhealthy", 0, "out of DNS"}, {"healthy", 1, "in again"}} {
		if err := s.exec(ctx, c, "/app", "health", "-set="+state.name); err != nil {
			return err
		}
		took, _, err := s.await(ctx, c, "health_status: "+state.name, s.srv("sick"), count(state.count))
		if err != nil {
			return err
		}
		s.say("Its HEALTHCHECK says %s: %s %s later.", state.name, state.what, ms(took))
	}
	return nil
}

// refused shows what berth says of a name that cannot be.
func (s *stage) refused(ctx context.Context) error {
	s.title("A bad name is refused, and berth says why")
	c, err := s.start(ctx, "typo", spec{app: apps.Calc, labels: map[string]string{"SERVICE_8080_NAME": "bad..name"}})
	if err != nil {
		return err
	}
	var out string
	err = s.until(ctx, "berth explains the refusal", func() (err error) {
		out, err = s.berth(ctx, "explain", c)
		if err == nil && !(strings.Contains(out, "refused") && strings.Contains(out, ", running")) {
			err = fmt.Errorf("it says: %s", out)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.say("docker run --label SERVICE_8080_NAME=bad..name …; berth explain typo:")
	s.quote(out)
	return nil
}

// status shows berth's own account.
func (s *stage) status(ctx context.Context) error {
	s.title("How berth fares")
	out, err := s.berth(ctx, "status")
	if err != nil {
		return err
	}
	s.quote(out)
	return nil
}

// ask sends the portal a request and checks its status.
func (s *stage) ask(ctx context.Context, want int) (ans portal.Answer, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.portal+"/?a=19&b=23", nil)
	if err != nil {
		return ans, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return ans, fmt.Errorf("ask the portal: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return ans, fmt.Errorf("ask the portal: %w", err)
	}
	if resp.StatusCode != want {
		return ans, fmt.Errorf("the portal answered %s, want %d: %s", resp.Status, want, body)
	}
	if err := json.Unmarshal(body, &ans); err != nil {
		return ans, fmt.Errorf("read the portal's answer: %w", err)
	}
	return ans, nil
}
