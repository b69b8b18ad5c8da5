// Command cadvisor is cAdvisor without what nobody asks of it in a benchmark: its
// manager, its plugin for Docker and its page of metrics, put together as its own
// command does, but with no pages for people, no other engines and no drivers of
// storage. That command is in a module which is only built from a clone of the
// repository; these libraries are published.
//
//	cadvisor -listen_ip 127.0.0.1 -port 19475 -docker_only -housekeeping_interval 10s …
//
// Its flags are cAdvisor's: -listen_ip, -port, -disable_metrics, and those that the
// libraries define.
package main

import (
	"flag"
	"log"
	"net"
	"net/http"
	"time"

	_ "github.com/google/cadvisor/container/docker/install"
	v2 "github.com/google/cadvisor/info/v2"
	"github.com/google/cadvisor/lib/cache/memory"
	"github.com/google/cadvisor/lib/container"
	"github.com/google/cadvisor/lib/manager"
	"github.com/google/cadvisor/lib/metrics"
	"github.com/google/cadvisor/lib/utils/sysfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/utils/clock"
)

// cached is how long figures are kept, which is cAdvisor's default.
const cached = 2 * time.Minute

func main() {
	ip := flag.String("listen_ip", "127.0.0.1", "where the page of metrics is served")
	port := flag.String("port", "8080", "its port")
	off := container.MetricSet{}
	flag.Var(&off, "disable_metrics", "metrics that are not measured, with commas between")
	flag.Parse()
	if err := serve(net.JoinHostPort(*ip, *port), container.AllMetrics.Difference(off)); err != nil {
		log.Fatal("cadvisor: ", err)
	}
}

func serve(listen string, on container.MetricSet) error {
	m, err := manager.New(memory.New(cached, nil), sysfs.NewRealSysFs(), manager.HousekeepingConfigFlags, on, []string{""}, []string{""}, "", 0)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		metrics.NewPrometheusCollector(m, metrics.DefaultContainerLabels, on, clock.RealClock{},
			v2.RequestOptions{IdType: v2.TypeName, Count: 1, Recursive: true}),
		metrics.NewPrometheusMachineCollector(m, on),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	if err := m.Start(); err != nil {
		return err
	}
	return http.ListenAndServe(listen, nil)
}
