package discovery

// What follows the prefix and the port in the keys of a service. Every other
// word is an attribute.
const (
	keyName     = "NAME"
	keyIgnore   = "IGNORE"
	keyNetwork  = "NETWORK"
	keyPriority = "PRIORITY"
	keyWeight   = "WEIGHT"
	keyTTL      = "TTL"
	keyTags     = "TAGS"
	keyID       = "ID"

	// checkPrefix begins the keys of checks, those below and others which
	// registrator knows.
	checkPrefix      = "CHECK_"
	keyCheckHTTP     = checkPrefix + "HTTP"
	keyCheckTCP      = checkPrefix + "TCP"
	keyCheckInterval = checkPrefix + "INTERVAL"
	keyCheckTimeout  = checkPrefix + "TIMEOUT"
	keyCheckRise     = checkPrefix + "RISE"
	keyCheckFall     = checkPrefix + "FALL"
	keyCheckInitial  = checkPrefix + "INITIAL_STATUS"
)

// checkKeys are the keys of checks that have an effect.
var checkKeys = []string{keyCheckHTTP, keyCheckTCP, keyCheckInterval, keyCheckTimeout, keyCheckRise, keyCheckFall, keyCheckInitial}

// Where a key may be.
const (
	inLabel    = "label"
	inVariable = "variable"
	inBoth     = "label or variable"
)

// Key describes a label or environment variable of containers that discovery
// understands.
type Key struct {
	// Name is the key. With "<port>_" in it that part may be left out, and the
	// key then holds for every port; other words in angle brackets stand for
	// any word.
	Name string
	// Where is "label", "variable" or "label or variable".
	Where string
	// Example is a value that it takes.
	Example string
	// Doc says what it does, in a sentence.
	Doc string
}

// Keys returns everything that discovery reads from a container's labels and
// variables, those of services first.
func Keys() []Key {
	const port = keyPrefix + "<port>_"
	return []Key{
		{port + keyName, inBoth, "calc, or _calc._tcp", "Names the port: calc makes SRV records at `_calc._tcp` and addresses at calc, `_calc._tcp` the former alone. Several names are separated by commas. Without a port it names every published one, and adds the port's number if there are several."},
		{port + keyIgnore, inBoth, "true", "Gives the port no name, whatever the value is."},
		{port + keyNetwork, inBoth, "backend", "Registers the container's own address on this network, instead of the host's."},
		{port + keyPriority, inBoth, "10", "Sets the SRV priority, from 0 to 65535; clients use the lowest that answers."},
		{port + keyWeight, inBoth, "5", "Sets the SRV weight, from 0 to 65535; clients spread over a priority in proportion to it."},
		{port + keyTTL, inBoth, "30, or 5m", "Sets the TTL: whole seconds or a duration, at most 24h."},
		{port + keyTags, inBoth, "blue,eu", "Adds tags, which `berth services` shows."},
		{port + keyID, inBoth, "calc-1", "Sets an ID, which `berth services` shows."},
		{port + keyCheckHTTP, inBoth, "/health", "Checks the port from the host: it is in DNS while a GET of this path is answered with 2xx, and the image's HEALTHCHECK passes, too, if it has one."},
		{port + keyCheckTCP, inBoth, "true", "Checks the port from the host: it is in DNS while it accepts connections, whatever the value is; CHECK_HTTP comes first."},
		{port + keyCheckInterval, inBoth, "5s, or 15", "Sets how often the check is run: whole seconds or a duration, instead of discovery.checks.interval."},
		{port + keyCheckTimeout, inBoth, "500ms, or 1", "Sets how long the check may take, at most its interval, instead of discovery.checks.timeout."},
		{port + keyCheckRise, inBoth, "2", "Sets after how many passes in a row the port is in DNS, instead of discovery.checks.rise."},
		{port + keyCheckFall, inBoth, "2", "Sets after how many failures in a row the port is out of DNS, instead of discovery.checks.fall."},
		{port + keyCheckInitial, inBoth, "passing, or critical", "Says whether a container that was just started is in DNS before its first verdict; it is not by default."},
		{port + checkPrefix + "<check>", inBoth, "true", "Is another check of registrator; it is shown and never run."},
		{port + "<attribute>", inBoth, "anything", "Is an attribute, which `berth services` shows."},

		{optInLabel, inLabel, "true", "Lets discovery.name_template name the published ports of a container that claims no name of its own."},

		{ecsPrefix + "task-arn", inLabel, "arn:aws:ecs:eu-west-1:1:task/prod/0a1b", "Says that ECS started the container; .Task is the last part."},
		{ecsPrefix + "cluster", inLabel, "prod", "Is .Cluster of a container of ECS."},
		{ecsPrefix + "task-definition-family", inLabel, "calc", "Is .Service of a container of ECS."},
		{ecsPrefix + "container-name", inLabel, "calc", "Is .Container of a container of ECS."},
		{nomadPrefix + "alloc_id", inLabel, "5e6f", "Says that Nomad started the container; it is .Task."},
		{nomadPrefix + "job_name", inLabel, "calc", "Is .Service of a container of Nomad."},
		{nomadPrefix + "job_id", inLabel, "calc", "Is .Service of a container of Nomad that has no job name."},
		{nomadPrefix + "task_name", inLabel, "calc", "Is .Container of a container of Nomad."},
		{"NOMAD_ALLOC_ID", inVariable, "5e6f", "Is as the label " + nomadPrefix + "alloc_id, which comes first."},
		{"NOMAD_JOB_NAME", inVariable, "calc", "Is as the label " + nomadPrefix + "job_name, which comes first."},
		{"NOMAD_TASK_NAME", inVariable, "calc", "Is as the label " + nomadPrefix + "task_name, which comes first."},
		{"NOMAD_DC", inVariable, "dc1", "Is .Cluster of a container of Nomad."},
		{"MARATHON_APP_ID", inVariable, "/prod/calc", "Says that Marathon started the container; .Service is calc-prod of it."},
		{"MESOS_TASK_ID", inVariable, "calc.5e6f", "Is .Task of a container of Marathon."},
		{swarmPrefix + "service.name", inLabel, "shop_calc", "Says that Swarm started the container; without the stack's name it is .Service and .Container."},
		{swarmPrefix + "task.id", inLabel, "5e6f", "Is .Task of a container of Swarm."},
		{stackLabel, inLabel, "shop", "Is .Cluster of a container of Swarm."},
		{composePrefix + "project", inLabel, "shop", "Says that docker compose started the container; it is .Cluster."},
		{composePrefix + "service", inLabel, "calc", "Is .Service and .Container of a container of docker compose."},
		{composePrefix + "container-number", inLabel, "1", "Is .Task of a container of docker compose."},
	}
}
