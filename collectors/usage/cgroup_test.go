package usage

import (
	"errors"
	"strings"
	"testing"
)

const someID = "2103a77c4f93a861eb34c4421a418e1bf3e21330f6191efc0f726b4e534140b2"

// Mounts as they are on hosts: v1 with each controller apart and v2 beside it,
// v1 of systemd with joint controllers, v2 alone, and a part of it only.
const (
	mountsApart = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`
	mountsJoint = `34 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:10 - cgroup cgroup rw,cpu,cpuacct
35 25 0:30 / /sys/fs/cgroup/memory rw shared:11 - cgroup cgroup rw,memory
36 25 0:31 / /sys/fs/cgroup/my\040blkio rw shared:12 - cgroup cgroup rw,blkio
`
	mountsV2   = "29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
	mountsPart = "29 23 0:26 /docker /mnt/cg rw - cgroup2 cgroup2 rw\n"
)

func TestPitfall_usage12_MountedApartJointlyOrUnified(t *testing.T) {
	v1 := func(path string) string {
		return "9:name=systemd:" + path + "\n7:blkio:" + path + "\n4:memory:" + path + "\n3:cpuset:" + path +
			"\n2:cpuacct:" + path + "\n1:cpu:" + path + "\n0::" + path + "\n"
	}
	for _, tc := range []struct {
		name, mounts, cgroup string
		want                 dirs
		err                  error
	}{
		{"apart, with v2 beside", mountsApart, v1("/docker/" + someID), dirs{
			cpuacct: "/sys/fs/cgroup/cpuacct/docker/" + someID, cpu: "/sys/fs/cgroup/cpu/docker/" + someID,
			memory: "/sys/fs/cgroup/memory/docker/" + someID, blkio: "/sys/fs/cgroup/blkio/docker/" + someID,
			unified: "/sys/fs/cgroup/unified/docker/" + someID,
		}, nil},
		{"jointly", mountsJoint, strings.ReplaceAll(v1("/system.slice/docker-"+someID+".scope"), "2:cpuacct:", "2:cpu,cpuacct:"), dirs{
			cpuacct: "/sys/fs/cgroup/cpu,cpuacct/system.slice/docker-" + someID + ".scope",
			cpu:     "/sys/fs/cgroup/cpu,cpuacct/system.slice/docker-" + someID + ".scope",
			memory:  "/sys/fs/cgroup/memory/system.slice/docker-" + someID + ".scope",
			blkio:   "/sys/fs/cgroup/my blkio/system.slice/docker-" + someID + ".scope",
		}, nil},
		{"v2", mountsV2, "0::/system.slice/docker-" + someID + ".scope\n", dirs{unified: "/sys/fs/cgroup/system.slice/docker-" + someID + ".scope"}, nil},
		{"v2, in part", mountsPart, "0::/docker/" + someID + "\n", dirs{unified: "/mnt/cg/" + someID}, nil},
		{"v2, another part", mountsPart, "0::/dockers/" + someID + "\n", dirs{}, errUnseen},
		{"outside of our namespace", mountsV2, "0::/../../docker/" + someID + "\n", dirs{}, errUnseen},
		{"memory alone", mountsApart, "4:memory:/docker/" + someID + "\n", dirs{memory: "/sys/fs/cgroup/memory/docker/" + someID}, errUnseen},
		{"rootless", mountsV2, "0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + someID + ".scope\n", dirs{
			unified: "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + someID + ".scope",
		}, nil},
	} {
		got, err := join([]byte(tc.cgroup), someID, hierarchies([]byte(tc.mounts)), nil)
		if got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("%s: got %+v, %v, want %+v, %v", tc.name, got, err, tc.want, tc.err)
		}
	}
}

func TestParentsOfAnyName(t *testing.T) {
	mounts := hierarchies([]byte(mountsV2))
	for _, tc := range []struct{ cgroup, want string }{
		{"/docker/" + someID, "/docker/" + someID},
		{"/ecs/0a1b2c/" + someID, "/ecs/0a1b2c/" + someID},
		{"/custom/parent/of/mine/" + someID, "/custom/parent/of/mine/" + someID},
		{"/system.slice/docker-" + someID + ".scope", "/system.slice/docker-" + someID + ".scope"},
		// systemd in a container has moved itself down, or runs the process in a service.
		{"/docker/" + someID + "/init.scope", "/docker/" + someID},
		{"/system.slice/docker-" + someID + ".scope/system.slice/ssh.service", "/system.slice/docker-" + someID + ".scope"},
		// A container that calls its cgroup something else.
		{"/mine", "/mine"},
	} {
		got, err := join([]byte("0::"+tc.cgroup+"\n"), someID, mounts, []byte("0::/system.slice/berth.service\n"))
		if want := "/sys/fs/cgroup" + tc.want; got.unified != want || err != nil {
			t.Errorf("%s: got %s, %v, want %s", tc.cgroup, got.unified, err, want)
		}
	}
	for _, foreign := range []string{"/", "/system.slice/berth.service"} {
		got, err := join([]byte("0::"+foreign+"\n"), someID, mounts, []byte("0::/system.slice/berth.service\n"))
		if !errors.Is(err, errForeign) {
			t.Errorf("%s: got %+v, %v, want %v", foreign, got, err, errForeign)
		}
	}
	// While the runtime moves the process, some hierarchies still have it elsewhere.
	got, err := join([]byte("4:memory:/system.slice/containerd.service\n2:cpuacct:/docker/"+someID+"\n"), someID, hierarchies([]byte(mountsApart)), nil)
	if want := (dirs{cpuacct: "/sys/fs/cgroup/cpuacct/docker/" + someID}); got != want || err != nil {
		t.Errorf("half moved: got %+v, %v, want %+v", got, err, want)
	}
}

func TestContainerID(t *testing.T) {
	for in, want := range map[string]string{
		someID:                        someID,
		"docker-" + someID + ".scope": someID,
		"libpod-" + someID + ".scope": someID,
		someID[1:]:                    "",
		someID + "0":                  "",
		"docker-" + someID:            "",
		strings.ToUpper(someID):       "",
		"init.scope":                  "",
		"":                            "",
		"docker-" + someID + ".mount": "",
		"crio-conmon-" + someID[:63] + "g" + ".scope": "",
	} {
		if got, ok := containerID(in); got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", in, got, ok, want)
		}
	}
}
