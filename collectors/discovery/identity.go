package discovery

import "github.com/berthd/berth/agent"

// Origin says which orchestrator started a container, and as what.
type Origin = agent.Origin

// Labels and variables in which orchestrators say who they are.
const (
	ecsPrefix     = agent.LabelsECS
	nomadPrefix   = agent.LabelsNomad
	swarmPrefix   = agent.LabelsSwarm
	composePrefix = agent.LabelsCompose
	stackLabel    = agent.LabelStack
)

// Identity returns where a container comes from.
func Identity(c *agent.Container) Origin { return agent.OriginOf(c) }
