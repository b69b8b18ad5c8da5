package node

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// host is where facts are read from: files below a root, and the routes.
type host struct {
	root   string
	routes func() addresses
}

// addresses are those that the default routes send from; invalid where there is
// no such route.
type addresses struct{ v4, v6 netip.Addr }

// read returns the trimmed contents of a small file, or "".
func (h host) read(path string) string {
	data, err := os.ReadFile(filepath.Join(h.root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// hostname returns the kernel's host name, or "" when it has none worth the word.
func (h host) hostname() string {
	name := h.read("proc/sys/kernel/hostname")
	switch first, _, _ := strings.Cut(strings.ToLower(name), "."); first {
	case "localhost", "(none)":
		return ""
	}
	return name
}

// onEC2 reports whether the firmware says that this is an EC2 instance. Nitro
// and bare metal say so in the vendor. On Xen only the UUID does, by beginning
// with "ec2", in either byte order; one in two thousand others begins so by
// chance, thus it counts only where the vendor is Xen or unknown.
// See "Detect whether a host is an EC2 instance" in the EC2 user guide.
func (h host) onEC2() bool {
	const dmi = "sys/class/dmi/id/"
	vendor := h.read(dmi + "sys_vendor")
	if vendor == "Amazon EC2" || h.read(dmi+"board_vendor") == "Amazon EC2" {
		return true
	}
	if vendor != "" && vendor != "Xen" {
		return false
	}
	if strings.Contains(strings.ToLower(h.read(dmi+"bios_version")), "amazon") {
		return true
	}
	for _, path := range []string{"sys/hypervisor/uuid", dmi + "product_uuid"} {
		uuid := strings.ToLower(h.read(path))
		if len(uuid) != 36 {
			continue
		}
		swapped := uuid[6:8] + uuid[4:6]
		if strings.HasPrefix(uuid, "ec2") || strings.HasPrefix(swapped, "ec2") {
			return true
		}
	}
	return false
}

// fingerprint reads what tells this host from others.
func (h host) fingerprint(hostname string, route addresses) fingerprint {
	f := fingerprint{
		MachineID:   hashID(h.machineID()),
		ProductUUID: hashID(h.productUUID()),
		MAC:         h.hardwareAddress(),
		Hostname:    hostname,
	}
	if a := cmp.Or(route.v4, route.v6); a.IsValid() {
		f.Address = a.String()
		if f.MAC == "" { // asking for all addresses takes as long as there are interfaces
			f.MAC = macOf(a)
		}
	}
	return f
}

// hardwareAddress returns that of the first network card: an interface with a
// device behind it, which there is before any route, and which containers and
// tunnels do not change. It returns "" where there is none.
func (h host) hardwareAddress() string {
	const dir = "sys/class/net"
	cards, err := os.ReadDir(filepath.Join(h.root, dir)) // sorted by name
	if err != nil {
		return ""
	}
	for _, card := range cards {
		if _, err := os.Stat(filepath.Join(h.root, dir, card.Name(), "device")); err != nil {
			continue
		}
		if mac := h.read(filepath.Join(dir, card.Name(), "address")); strings.Trim(mac, "0:") != "" {
			return mac
		}
	}
	return ""
}

// machineID returns the ID of /etc/machine-id (machine-id(5)): 32 hexadecimal
// digits, or "" while it is missing, empty or "uninitialized".
func (h host) machineID() string {
	id := strings.ToLower(h.read("etc/machine-id"))
	if len(id) != 32 || !isHex(id) || isFiller(id) {
		return ""
	}
	return id
}

// boilerplate are product UUIDs that board makers left in by the thousand.
var boilerplate = []string{
	"03000200-0400-0500-0006-000700080009",
	"12345678-1234-5678-90ab-cddeefaabbcc",
	"fefefefe-fefe-fefe-fefe-fefefefefefe",
}

// productUUID returns the firmware's UUID of this machine, readable by root
// alone, or "" when it has none of its own.
func (h host) productUUID() string {
	uuid := strings.ToLower(h.read("sys/class/dmi/id/product_uuid"))
	digits := strings.ReplaceAll(uuid, "-", "")
	if len(digits) != 32 || !isHex(digits) || isFiller(digits) || slices.Contains(boilerplate, uuid) {
		return ""
	}
	return uuid
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// isFiller reports whether s is one character repeated.
func isFiller(s string) bool { return strings.Trim(s, s[:1]) == "" }

// macOf returns the hardware address of the interface that has address a.
func macOf(a netip.Addr) string {
	ifaces, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, i := range ifaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, addr := range addrs {
			if p, ok := addr.(*net.IPNet); ok && p.IP.Equal(a.AsSlice()) {
				return i.HardwareAddr.String()
			}
		}
	}
	return ""
}

// defaultRoutes asks the kernel which address it would send from. Connecting a
// UDP socket sends nothing; the targets are of the ranges for documentation
// (RFC 5737, RFC 3849), which only a default route leads to.
func defaultRoutes() addresses {
	return addresses{
		v4: sourceAddress("udp4", "192.0.2.1:9"),
		v6: sourceAddress("udp6", "[2001:db8::1]:9"),
	}
}

func sourceAddress(network, target string) netip.Addr {
	d := net.Dialer{ControlContext: preferPublic}
	conn, err := d.Dial(network, target)
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}
	}
	a := local.AddrPort().Addr().Unmap().WithZone("")
	if !usable(a) {
		return netip.Addr{}
	}
	return a
}

// preferPublic asks for the lasting IPv6 address rather than one of the
// temporary ones (RFC 5014), which change every day.
func preferPublic(_ context.Context, network, _ string, c syscall.RawConn) error {
	if network != "udp6" {
		return nil
	}
	const preferSrcPublic = 0x2 // IPV6_PREFER_SRC_PUBLIC of linux/in6.h
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_ADDR_PREFERENCES, preferSrcPublic)
	})
}
