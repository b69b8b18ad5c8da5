package discovery

import (
	"slices"
	"strings"

	"github.com/berthd/berth/agent"
)

// Origin says which orchestrator started a container, and as what. Fields that
// the orchestrator does not tell are empty.
type Origin struct {
	// Orchestrator is "ecs", "nomad", "marathon", "swarm", "compose", or "" for
	// a container that none of them started.
	Orchestrator string `json:"orchestrator,omitempty"`
	// Cluster is the ECS cluster, Nomad datacenter, Swarm stack or compose
	// project.
	Cluster string `json:"cluster,omitempty"`
	// Service is the ECS task definition family (ECS tells a container nothing
	// of its service), the Nomad job, the Marathon app in the form of Mesos-DNS
	// (/prod/calc is calc-prod), or the Swarm or compose service.
	Service string `json:"service,omitempty"`
	// Task is the ECS task ID, Nomad allocation, Mesos task, Swarm task, or the
	// compose container number.
	Task string `json:"task,omitempty"`
	// Container is the container's name in the ECS task definition, the Nomad
	// task, or the compose or Swarm service.
	Container string `json:"container,omitempty"`
}

// Labels and variables in which orchestrators say who they are.
const (
	ecsPrefix     = "com.amazonaws.ecs."
	nomadPrefix   = "com.hashicorp.nomad."
	swarmPrefix   = "com.docker.swarm."
	composePrefix = "com.docker.compose."
	stackLabel    = "com.docker.stack.namespace"
)

// Identity returns where a container comes from. It is pure; the variables that
// it reads are MARATHON_APP_ID, MESOS_TASK_ID and NOMAD_{DC,JOB_NAME,ALLOC_ID,
// TASK_NAME}, as far as the engine's allow-list lets them through.
func Identity(c *agent.Container) Origin {
	l, env := c.Labels, c.Env
	switch {
	case isECS(c):
		return Origin{
			Orchestrator: "ecs",
			Cluster:      lastSegment(l[ecsPrefix+"cluster"]),
			Service:      l[ecsPrefix+"task-definition-family"],
			Task:         lastSegment(l[ecsPrefix+"task-arn"]),
			Container:    l[ecsPrefix+"container-name"],
		}
	case l[nomadPrefix+"alloc_id"] != "" || env["NOMAD_ALLOC_ID"] != "":
		return Origin{
			Orchestrator: "nomad",
			Cluster:      env["NOMAD_DC"],
			Service:      first(l[nomadPrefix+"job_name"], env["NOMAD_JOB_NAME"], l[nomadPrefix+"job_id"]),
			Task:         first(l[nomadPrefix+"alloc_id"], env["NOMAD_ALLOC_ID"]),
			Container:    first(l[nomadPrefix+"task_name"], env["NOMAD_TASK_NAME"]),
		}
	case env["MARATHON_APP_ID"] != "":
		return Origin{
			Orchestrator: "marathon",
			Service:      mesosName(env["MARATHON_APP_ID"]),
			Task:         env["MESOS_TASK_ID"],
		}
	case l[swarmPrefix+"service.name"] != "":
		stack := l[stackLabel]
		service := strings.TrimPrefix(l[swarmPrefix+"service.name"], stack+"_")
		return Origin{
			Orchestrator: "swarm", Cluster: stack,
			Service: service, Task: l[swarmPrefix+"task.id"], Container: service,
		}
	case l[composePrefix+"project"] != "":
		return Origin{
			Orchestrator: "compose",
			Cluster:      l[composePrefix+"project"],
			Service:      l[composePrefix+"service"],
			Task:         l[composePrefix+"container-number"],
			Container:    l[composePrefix+"service"],
		}
	}
	return Origin{}
}

// isECS reports whether the ECS agent started the container.
func isECS(c *agent.Container) bool { return c.Labels[ecsPrefix+"task-arn"] != "" }

// lastSegment returns what follows the last slash of an ARN.
func lastSegment(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }

// mesosName turns an app's path around, as Mesos-DNS does.
func mesosName(app string) string {
	parts := strings.Split(strings.Trim(app, "/"), "/")
	slices.Reverse(parts)
	return strings.Join(parts, "-")
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
