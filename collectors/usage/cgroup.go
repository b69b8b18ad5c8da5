package usage

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// hierarchy is a mounted cgroup hierarchy, or a part of one.
type hierarchy struct {
	controllers []string // of v1; nil for v2, the unified one
	v2          bool
	root        string // the cgroup that is mounted, "/" for all of them
	point       string // where
}

// hierarchies reads mountinfo (proc(5)): nothing else tells where cgroups are,
// because distributions mount them as they like.
func hierarchies(mountinfo []byte) []hierarchy {
	var out []hierarchy
	for l := range bytes.Lines(mountinfo) {
		before, after, ok := strings.Cut(string(bytes.TrimSpace(l)), " - ")
		mount, super := strings.Fields(before), strings.Fields(after)
		if !ok || len(mount) < 6 || len(super) < 3 {
			continue
		}
		h := hierarchy{root: unescape(mount[3]), point: unescape(mount[4])}
		switch super[0] {
		case "cgroup2":
			h.v2 = true
		case "cgroup":
			h.controllers = strings.Split(super[2], ",")
		default:
			continue
		}
		out = append(out, h)
	}
	return out
}

// unescape turns the octal escapes of mountinfo around.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// dirs are the folders of one container's cgroups, each "" where there is none.
type dirs struct {
	cpuacct, cpu, memory, blkio string // of v1
	unified                     string // of v2
}

// main returns the folder whose CPU time is counted.
func (d dirs) main() string {
	if d.cpuacct != "" {
		return d.cpuacct
	}
	return d.unified
}

var (
	// errUnseen is an error of a process whose cgroups are mounted nowhere here.
	errUnseen = errors.New("its cgroup is not mounted here")
	// errForeign is that of a process in no cgroup of its own, or in another's.
	errForeign = errors.New("its process is in no cgroup of its own")
)

// join returns where the cgroups of a container are, from /proc/PID/cgroup of
// any of its processes. A process may have moved further down, as systemd in a
// container does: the container's cgroup is the one named after it. Where any
// hierarchy has such a one, no other counts: a process that is just being moved
// is still elsewhere in some. Where none has, it is the one that the process is
// in, unless that is a root, our own, or another container's.
func join(procCgroup []byte, id string, mounts []hierarchy, own []byte) (dirs, error) {
	var d dirs
	byName := id != "" && bytes.Contains(procCgroup, []byte(id))
	for l := range bytes.Lines(procCgroup) {
		number, rest, ok := strings.Cut(strings.TrimRight(string(l), "\n"), ":")
		list, name, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 {
			continue
		}
		name = strings.TrimSuffix(name, " (deleted)")
		cgroup, named := cutAfter(name, id)
		if !named && (byName || name == "/" || anothers(name) || bytes.Contains(own, l)) {
			continue
		}
		v2 := number == "0" && list == ""
		for controller := range strings.SplitSeq(list, ",") {
			at := d.of(controller, v2)
			if at == nil || *at != "" {
				continue
			}
			for i := range mounts {
				if dir, ok := mounts[i].folder(controller, v2, cgroup); ok {
					*at = dir
					break
				}
			}
		}
	}
	if d == (dirs{}) {
		if byName {
			return d, errUnseen
		}
		return d, errForeign
	}
	if d.main() == "" {
		return d, fmt.Errorf("%w: neither cpuacct nor the unified hierarchy", errUnseen)
	}
	return d, nil
}

// anothers reports whether a cgroup is, or is in, that of some container.
func anothers(name string) bool {
	for folder := range strings.SplitSeq(name, "/") {
		if _, ok := containerID(folder); ok {
			return true
		}
	}
	return false
}

// of returns where the folder of a controller is noted, nil for one that does
// not matter.
func (d *dirs) of(controller string, v2 bool) *string {
	switch {
	case v2:
		return &d.unified
	case controller == "cpuacct":
		return &d.cpuacct
	case controller == "cpu":
		return &d.cpu
	case controller == "memory":
		return &d.memory
	case controller == "blkio":
		return &d.blkio
	}
	return nil
}

// folder returns where a cgroup of the hierarchy is mounted.
func (h *hierarchy) folder(controller string, v2 bool, cgroup string) (string, bool) {
	if h.v2 != v2 || !v2 && !slices.Contains(h.controllers, controller) {
		return "", false
	}
	below := cgroup
	if h.root != "/" {
		var ok bool
		if below, ok = strings.CutPrefix(cgroup, h.root); !ok || below != "" && below[0] != '/' {
			return "", false
		}
	}
	if strings.Contains(below, "/..") { // outside of our cgroup namespace
		return "", false
	}
	return path.Join(h.point, below), true
}

// cutAfter cuts a path after the first element that is named after the container
// (ID, or docker-ID.scope), and reports whether there is one.
func cutAfter(name, id string) (string, bool) {
	i := strings.Index(name, id)
	if id == "" || i < 0 {
		return name, false
	}
	if end := strings.IndexByte(name[i:], '/'); end >= 0 {
		return name[:i+end], true
	}
	return name, true
}

// idLength is the length of a container's ID: 256 bits in hexadecimal digits.
const idLength = 64

// containerID returns the ID that the name of a cgroup's folder holds: ID, as
// the driver cgroupfs writes it, or docker-ID.scope, as systemd does.
func containerID(folder string) (string, bool) {
	name := strings.TrimSuffix(folder, ".scope")
	if name != folder {
		name = name[strings.LastIndexByte(name, '-')+1:]
	}
	if len(name) != idLength {
		return "", false
	}
	for i := range len(name) {
		if c := name[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", false
		}
	}
	return name, true
}
