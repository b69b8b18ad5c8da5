package docker

import (
	"slices"
	"testing"

	"github.com/docker/docker/api/types/container"

	"github.com/berthd/berth/agent"
)

// What a container was given is taken over field by field, without a meaning
// being read into it.
func TestToContainer_Resources(t *testing.T) {
	in := &container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{
			ID:    "abc",
			State: &container.State{Status: "exited", OOMKilled: true},
			HostConfig: &container.HostConfig{Resources: container.Resources{
				NanoCPUs: 1, CPUQuota: -1, CPUPeriod: 3, CPUShares: 4, CpusetCpus: "0-1",
				Memory: 6, MemoryReservation: 7, CgroupParent: "/ecs",
			}},
		},
		Config: &container.Config{},
		Mounts: []container.MountPoint{{Source: "/var/log/b"}, {Source: ""}, {Source: "/var/log/a"}},
	}
	got, err := toContainer(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := agent.Resources{
		NanoCPUs: 1, CPUQuota: -1, CPUPeriod: 3, CPUShares: 4, Cpuset: "0-1", Memory: 6, MemoryLow: 7, CgroupParent: "/ecs",
	}
	if got.Resources != want {
		t.Errorf("got %+v, want %+v", got.Resources, want)
	}
	if !got.OOMKilled {
		t.Error("the out-of-memory kill is lost")
	}
	if want := []string{"/var/log/a", "/var/log/b"}; !slices.Equal(got.Mounts, want) {
		t.Errorf("mounts: got %q, want %q", got.Mounts, want)
	}
}
