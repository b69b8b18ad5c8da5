package usage

// Key describes a label and a variable of containers that usage understands.
type Key struct {
	Label, Variable string // either may be empty
	Example         string // a value that it takes
	Doc             string // what it says, in a sentence
}

// Keys returns what usage reads of containers besides what their schedulers say:
// see the reservation's sources in the package comment.
func Keys() []Key {
	return []Key{
		{labelCPU, variableCPU, "0.5", "Reserves cores, as 2, 0.5 or 250m, whatever the engine was told."},
		{labelMemory, variableMemory, "512MiB", "Reserves memory."},
		{labelService, variableService, "calc", "Names the service that the container is one of."},
		{labelEnvironment, variableEnvironment, "prod", "Names its environment."},
		{labelCritical, variableCritical, "true", "Has it sized with more room: by the 95th percentile of each hour instead of the 90th."},
		{datadogService, datadogServiceVariable, "calc", "Names the service where none of ours does; statsd adds it to metrics."},
		{datadogEnvironment, datadogEnvironmentVariable, "prod", "Names its environment where none of ours does; statsd adds it to metrics."},
	}
}
