package agent

import (
	"cmp"
	"slices"
	"strings"
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

// What the labels begin with in which orchestrators say who they are.
const (
	LabelsECS     = "com.amazonaws.ecs."
	LabelsNomad   = "com.hashicorp.nomad."
	LabelsSwarm   = "com.docker.swarm."
	LabelsCompose = "com.docker.compose."
	LabelStack    = "com.docker.stack.namespace" // this one is whole
)

// OriginOf returns where a container comes from. It is pure; the variables that
// it reads are MARATHON_APP_ID, MESOS_TASK_ID and NOMAD_{DC,JOB_NAME,ALLOC_ID,
// TASK_NAME}, as far as the engine's allow-list lets them through.
func OriginOf(c *Container) Origin {
	l, env := c.Labels, c.Env
	switch {
	case c.OfECS():
		return Origin{
			Orchestrator: "ecs",
			Cluster:      lastSegment(l[LabelsECS+"cluster"]),
			Service:      l[LabelsECS+"task-definition-family"],
			Task:         lastSegment(l[LabelsECS+"task-arn"]),
			Container:    l[LabelsECS+"container-name"],
		}
	case l[LabelsNomad+"alloc_id"] != "" || env["NOMAD_ALLOC_ID"] != "":
		return Origin{
			Orchestrator: "nomad",
			Cluster:      env["NOMAD_DC"],
			Service:      cmp.Or(l[LabelsNomad+"job_name"], env["NOMAD_JOB_NAME"], l[LabelsNomad+"job_id"]),
			Task:         cmp.Or(l[LabelsNomad+"alloc_id"], env["NOMAD_ALLOC_ID"]),
			Container:    cmp.Or(l[LabelsNomad+"task_name"], env["NOMAD_TASK_NAME"]),
		}
	case env["MARATHON_APP_ID"] != "":
		return Origin{
			Orchestrator: "marathon",
			Service:      mesosName(env["MARATHON_APP_ID"]),
			Task:         env["MESOS_TASK_ID"],
		}
	case l[LabelsSwarm+"service.name"] != "":
		stack := l[LabelStack]
		service := strings.TrimPrefix(l[LabelsSwarm+"service.name"], stack+"_")
		return Origin{
			Orchestrator: "swarm", Cluster: stack,
			Service: service, Task: l[LabelsSwarm+"task.id"], Container: service,
		}
	case l[LabelsCompose+"project"] != "":
		return Origin{
			Orchestrator: "compose",
			Cluster:      l[LabelsCompose+"project"],
			Service:      l[LabelsCompose+"service"],
			Task:         l[LabelsCompose+"container-number"],
			Container:    l[LabelsCompose+"service"],
		}
	}
	return Origin{}
}

// OfECS reports whether the ECS agent started the container.
func (c *Container) OfECS() bool { return c.Labels[LabelsECS+"task-arn"] != "" }

// lastSegment returns what follows the last slash of an ARN.
func lastSegment(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }

// mesosName turns an app's path around, as Mesos-DNS does.
func mesosName(app string) string {
	parts := strings.Split(strings.Trim(app, "/"), "/")
	slices.Reverse(parts)
	return strings.Join(parts, "-")
}
