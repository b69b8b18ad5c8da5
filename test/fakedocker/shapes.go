package fakedocker

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// object is a JSON object. The shapes are written out as maps, because they are
// those of one release of the engine, whatever the client's module says today.
type object = map[string]any

// stamp writes a time as the engine does; the zero time is its "never".
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func (e *Engine) listNetworks(url.Values) (any, error) {
	out := make([]object, 0, len(e.networks))
	for _, n := range e.networks {
		config, options := []object{}, object{}
		var ipam any // the engine's own networks have no options, those of users have empty ones
		if n.subnet.IsValid() {
			entry := object{"Subnet": n.subnet.String()}
			if n.name == "bridge" { // its gateway is told nowhere
				options = object{
					"com.docker.network.bridge.default_bridge":       "true",
					"com.docker.network.bridge.enable_icc":           "true",
					"com.docker.network.bridge.enable_ip_masquerade": "true",
					"com.docker.network.bridge.host_binding_ipv4":    "0.0.0.0",
					"com.docker.network.bridge.name":                 "docker0",
					"com.docker.network.driver.mtu":                  "1500",
				}
			} else {
				ipam = object{}
				entry["Gateway"] = n.gateway().String()
			}
			config = append(config, entry)
		}
		out = append(out, object{
			"Name": n.name, "Id": n.id, "Created": stamp(time.Unix(1_700_000_000, 0)), "Scope": "local",
			"Driver": n.driver, "EnableIPv6": false,
			"IPAM":     object{"Driver": "default", "Options": ipam, "Config": config},
			"Internal": false, "Attachable": false, "Ingress": false,
			"ConfigFrom": object{"Network": ""}, "ConfigOnly": false,
			"Containers": object{}, "Options": options, "Labels": object{},
		})
	}
	return out, nil
}

// list answers GET /containers/json, the newest first.
func (e *Engine) list(query url.Values) (any, error) {
	all, _ := strconv.ParseBool(query.Get("all"))
	out := []object{}
	for _, c := range slices.Backward(e.containers) {
		if !all && !c.alive() {
			continue
		}
		out = append(out, object{
			"Id": c.id, "Names": []string{"/" + c.name}, "Image": c.spec.Image, "ImageID": c.imageID(),
			"Command": "/app", "Created": c.created.Unix(), "Ports": c.listPorts(), "Labels": c.labels(),
			"State": c.status, "Status": c.statusLine(time.Now()),
			"HostConfig":      object{"NetworkMode": c.mode()},
			"NetworkSettings": object{"Networks": e.endpoints(c)},
			"Mounts":          []object{},
		})
	}
	return out, nil
}

func (c *container) listPorts() []object {
	out := []object{}
	for _, b := range c.ports {
		p := object{"PrivatePort": b.port, "Type": b.proto}
		if b.hostPort != 0 {
			p["IP"], p["PublicPort"] = b.hostIP.String(), b.hostPort
		}
		out = append(out, p)
	}
	return out
}

// statusLine is the text that docker ps shows.
func (c *container) statusLine(now time.Time) string {
	switch {
	case c.status == "created":
		return "Created"
	case c.status == "exited":
		return fmt.Sprintf("Exited (%d) %s ago", c.exit, human(now.Sub(c.finished)))
	}
	line := "Up " + human(now.Sub(c.started))
	switch {
	case c.status == "paused":
		line += " (Paused)"
	case c.health == "starting":
		line += " (health: starting)"
	case c.health != "":
		line += " (" + c.health + ")"
	}
	return line
}

// human is how the engine writes a duration (HumanDuration of
// github.com/docker/go-units), up to days.
func human(d time.Duration) string {
	hours := int(d.Hours() + 0.5)
	switch seconds, minutes := int(d.Seconds()), int(d.Minutes()); {
	case seconds < 1:
		return "Less than a second"
	case seconds == 1:
		return "1 second"
	case seconds < 60:
		return fmt.Sprintf("%d seconds", seconds)
	case minutes == 1:
		return "About a minute"
	case minutes < 60:
		return fmt.Sprintf("%d minutes", minutes)
	case hours == 1:
		return "About an hour"
	case hours < 48:
		return fmt.Sprintf("%d hours", hours)
	default:
		return fmt.Sprintf("%d days", hours/24)
	}
}

// inspect answers GET /containers/{id}/json.
func (e *Engine) inspect(ref string) (any, error) {
	c := e.find(ref)
	if c == nil {
		return nil, &apiError{http.StatusNotFound, "No such container: " + ref}
	}
	if e.faults.inspect[c.id] {
		return nil, &apiError{http.StatusInternalServerError, "layer does not exist"}
	}
	dir := "/var/lib/docker/containers/" + c.id
	return object{
		"Id": c.id, "Created": stamp(c.created), "Path": "/app", "Args": []string{}, "State": c.state(),
		"Image": c.imageID(), "ResolvConfPath": dir + "/resolv.conf", "HostnamePath": dir + "/hostname",
		"HostsPath": dir + "/hosts", "LogPath": dir + "/" + c.id + "-json.log", "Name": "/" + c.name,
		"RestartCount": 0, "Driver": "overlay2", "Platform": "linux", "MountLabel": "", "ProcessLabel": "",
		"AppArmorProfile": "", "ExecIDs": nil, "Mounts": []object{},
		"GraphDriver":     object{"Data": object{}, "Name": "overlay2"},
		"HostConfig":      c.hostConfig(),
		"Config":          c.config(),
		"NetworkSettings": e.networkSettings(c),
	}, nil
}

func (c *container) state() object {
	s := object{
		"Status": c.status, "Running": c.alive(), "Paused": c.status == "paused", "Restarting": false,
		"OOMKilled": false, "Dead": false, "Pid": c.pid, "ExitCode": c.exit, "Error": "",
		"StartedAt": stamp(c.started), "FinishedAt": stamp(c.finished),
	}
	if c.health != "" {
		s["Health"] = object{"Status": c.health, "FailingStreak": 0, "Log": []object{}}
	}
	return s
}

func (c *container) imageID() string { return "sha256:" + hash("image", c.spec.Image) }

func (c *container) labels() map[string]string {
	if c.spec.Labels == nil {
		return map[string]string{}
	}
	return c.spec.Labels
}

// mode is HostConfig.NetworkMode; docker run leaves it at "default".
func (c *container) mode() string {
	if c.spec.Network == "" {
		return "default"
	}
	return c.spec.Network
}

// hostConfig has what berth could be interested in, and nothing of the
// resources.
func (c *container) hostConfig() object {
	bindings := object{}
	for _, p := range c.spec.Publish {
		parts := strings.Split(p, ":")
		b := parseInside(parts[len(parts)-1])
		host := object{"HostIp": "", "HostPort": ""}
		if len(parts) > 1 {
			host["HostPort"] = parts[len(parts)-2]
		}
		if len(parts) > 2 {
			host["HostIp"] = parts[0]
		}
		bindings[b.key()] = []object{host}
	}
	return object{
		"Binds": nil, "ContainerIDFile": "", "LogConfig": object{"Type": "json-file", "Config": object{}},
		"NetworkMode": c.mode(), "PortBindings": bindings,
		"RestartPolicy": object{"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": false,
		"Privileged": false, "PublishAllPorts": false, "Runtime": "runc",
	}
}

func (b binding) key() string { return fmt.Sprintf("%d/%s", b.port, b.proto) }

func (c *container) config() object {
	config := object{
		"Hostname": c.id[:12], "Domainname": "", "User": "",
		"AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
		"Tty": false, "OpenStdin": false, "StdinOnce": false,
		"Env": c.spec.Env, "Cmd": []string{}, "Image": c.spec.Image, "Volumes": nil,
		"WorkingDir": "", "Entrypoint": []string{"/app"}, "OnBuild": nil, "Labels": c.labels(),
	}
	exposed := object{}
	for _, p := range slices.Concat(c.spec.Expose, c.spec.Publish) {
		exposed[parseInside(p[strings.LastIndex(p, ":")+1:]).key()] = object{}
	}
	if len(exposed) > 0 {
		config["ExposedPorts"] = exposed
	}
	if c.spec.StopSignal != "" {
		config["StopSignal"] = c.spec.StopSignal
	}
	if c.spec.Health != "" {
		config["Healthcheck"] = object{"Test": []string{"CMD-SHELL", "true"}, "Interval": int64(time.Second)}
	}
	return config
}

func (e *Engine) networkSettings(c *container) object {
	ports := object{}
	for _, b := range c.ports {
		if b.hostPort == 0 {
			ports[b.key()] = nil
			continue
		}
		bound, _ := ports[b.key()].([]object)
		ports[b.key()] = append(bound, object{"HostIp": b.hostIP.String(), "HostPort": strconv.Itoa(b.hostPort)})
	}
	s := object{
		"Bridge": "", "SandboxID": hash("sandbox", c.id), "HairpinMode": false,
		"LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0, "Ports": ports,
		"SandboxKey":           "/var/run/docker/netns/" + hash("sandbox", c.id)[:12],
		"SecondaryIPAddresses": nil, "SecondaryIPv6Addresses": nil,
		"Networks": e.endpoints(c),
	}
	// The default bridge's endpoint is told a second time, beside the others.
	top := endpoint(nil, netip.Addr{}, "")
	if c.spec.Network == "" {
		top = endpoint(e.networkOf(c), c.ip, c.endpointID())
	}
	for _, key := range []string{
		"EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen", "IPv6Gateway", "MacAddress",
	} {
		s[key] = top[key]
	}
	return s
}

// endpointID is "" for a container that does not run.
func (c *container) endpointID() string {
	if !c.alive() {
		return ""
	}
	return hash("endpoint", c.id)
}

func (e *Engine) endpoints(c *container) object {
	n := e.networkOf(c)
	if n == nil {
		return object{}
	}
	return object{n.name: endpoint(n, c.ip, c.endpointID())}
}

func endpoint(n *network, ip netip.Addr, id string) object {
	o := object{
		"IPAMConfig": nil, "Links": nil, "Aliases": nil, "NetworkID": "", "EndpointID": id,
		"Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "",
		"GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "MacAddress": "", "DriverOpts": nil,
	}
	if n != nil {
		o["NetworkID"] = n.id
	}
	if ip.IsValid() {
		b := ip.As4()
		o["Gateway"], o["IPAddress"], o["IPPrefixLen"] = n.gateway().String(), ip.String(), n.subnet.Bits()
		o["MacAddress"] = fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3])
	}
	return o
}
