package node

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestOnEC2(t *testing.T) {
	for _, tc := range []struct {
		what  string
		files map[string]string
		want  bool
	}{
		{"nothing", nil, false},
		{"Nitro", map[string]string{dmi + "sys_vendor": "Amazon EC2\n"}, true},
		{"bare metal", map[string]string{dmi + "sys_vendor": "Foo", dmi + "board_vendor": "Amazon EC2"}, true},
		{"Xen", map[string]string{dmi + "sys_vendor": "Xen", dmi + "product_uuid": "EC2A1B2C-0000-1111-2222-333344445555\n"}, true},
		{"Xen, other byte order", map[string]string{dmi + "sys_vendor": "Xen", dmi + "product_uuid": "45e12aec-dcd1-b213-94ed-012345678abc"}, true},
		{"Xen, no order", map[string]string{dmi + "sys_vendor": "Xen", dmi + "product_uuid": "4512e12c-dcd1-b213-94ed-012345678abc"}, false},
		{"Xen, BIOS", map[string]string{dmi + "sys_vendor": "Xen", dmi + "bios_version": "4.11.amazon"}, true},
		{"paravirtual", map[string]string{"sys/hypervisor/uuid": "ec2e1916-9099-7caf-fd21-012345abcdef"}, true},
		{"Xen elsewhere", map[string]string{dmi + "sys_vendor": "Xen", "sys/hypervisor/uuid": "0c2e1916-9099-7caf-fd21-012345abcdef"}, false},
		{"by chance", map[string]string{dmi + "sys_vendor": "Dell Inc.", dmi + "product_uuid": "ec2a1b2c-0000-1111-2222-333344445555"}, false},
		{"not a UUID", map[string]string{"sys/hypervisor/uuid": "ec2"}, false},
	} {
		m := newMachine(t)
		m.remove("sys/class/dmi")
		for path, text := range tc.files {
			m.write(path, text)
		}
		if got := (host{root: m.root}).onEC2(); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.what, got, tc.want)
		}
	}
}

func TestUnusableNumbersAreUnknown(t *testing.T) {
	m := newMachine(t)
	h := host{root: m.root}
	for _, id := range []string{"", "uninitialized", strings.Repeat("0", 32), "xyz", id1 + "0"} {
		m.write("etc/machine-id", id)
		if got := h.machineID(); got != "" {
			t.Errorf("machine ID %q read as %q", id, got)
		}
	}
	for _, id := range []string{"", "Not Settable", "00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", boilerplate[0]} {
		m.write(dmi+"product_uuid", id)
		if got := h.productUUID(); got != "" {
			t.Errorf("product UUID %q read as %q", id, got)
		}
	}
	m.card("00:00:00:00:00:00")
	if got := h.hardwareAddress(); got != "" {
		t.Errorf("hardware address = %q", got)
	}
	m.remove("sys/class/net/eth0")
	m.write("sys/class/net/docker0/address", mac1) // no device behind it
	if got := h.hardwareAddress(); got != "" {
		t.Errorf("hardware address of a bridge = %q", got)
	}
}

func TestLabels(t *testing.T) {
	for in, want := range map[string]string{
		"web1": "web1", "Web_1": "web-1", "--a--b--": "a-b", "": "", "ä": "", "ip-10-0-0-1": "ip-10-0-0-1",
		strings.Repeat("x", 60): strings.Repeat("x", 54), strings.Repeat("x", 53) + "-y": strings.Repeat("x", 53),
	} {
		if got := cleanLabel(in, 54); got != want {
			t.Errorf("cleanLabel(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzDerive(f *testing.F) {
	f.Add("0123", "uuid", "mac", "Web_1.example.com", "10.0.0.1")
	f.Add("", "", "", "", "")
	f.Add("", "", "", "", "2001:db8::1")
	f.Add("", "", "", "ÄÖÜ", "")
	f.Fuzz(func(t *testing.T, machineID, uuid, mac, hostname, address string) {
		fp := fingerprint{machineID, uuid, mac, hostname, address}
		id := fp.derive()
		if id.ID != "" && !labelForm.MatchString(id.ID) || (id.ID == "") != (id.Source == "") {
			t.Errorf("%+v has the identity %+v", fp, id)
		}
		if fp.contradicts(fp) || fp.contradicts(fingerprint{}) || (fingerprint{}).contradicts(fp) {
			t.Errorf("%+v contradicts itself or nothing", fp)
		}
	})
}

// Many hosts' names resolve to 127.0.1.1; no container elsewhere could use it.
func TestAddressesThatOthersCannotReach(t *testing.T) {
	for a, want := range map[string]bool{
		"127.0.1.1": false, "127.0.0.1": false, "0.0.0.0": false, "169.254.1.1": false, "224.0.0.1": false,
		"::1": false, "::": false, "fe80::1": false, "10.0.0.1": true, "100.64.0.1": true, "2001:db8::1": true, "fd00::1": true,
	} {
		if got := usable(netip.MustParseAddr(a)); got != want {
			t.Errorf("usable(%s) = %v, want %v", a, got, want)
		}
	}
	for _, a := range []netip.Addr{sourceAddress("udp4", "127.0.0.1:9"), defaultRoutes().v4, defaultRoutes().v6} {
		if a.IsValid() && !usable(a) {
			t.Errorf("source address %s is of no use", a)
		}
	}
	if a := sourceAddress("udp4", "127.0.0.1:9"); a.IsValid() {
		t.Errorf("source address towards loopback = %s, want none", a)
	}
}

func TestValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	bad := Config{
		ID: "Web.1", IPv4: netip.MustParseAddr("127.0.1.1"), IPv6: netip.MustParseAddr("::ffff:10.0.0.1"),
		EC2: "yes", IMDSEndpoint: "169.254.169.254",
	}
	err := bad.Validate()
	if err == nil {
		t.Fatal("a wrong config passes")
	}
	for _, key := range []string{"id: ", "ipv4: ", "ipv6: ", "ec2: ", "imds_endpoint: "} {
		if !strings.Contains("\n"+err.Error(), "\n"+key) {
			t.Errorf("nothing is said of %q in:\n%v", key, err)
		}
	}
}

func TestMemoryRoundTrip(t *testing.T) {
	m := memory{Identity: identity{"web-1", "hostname"}, Fingerprint: fingerprint{Hostname: "web"}}
	got := decodeMemory([]byte(`{"fingerprint":{"hostname":"web"},"identity":{"id":"web-1","source":"hostname"},"instance":{"id":"../x"}}`))
	if diff := cmp.Diff(m, got, cmpopts.EquateComparable(memory{})); diff != "" {
		t.Errorf("memory (-want +got):\n%s", diff)
	}
	if got := decodeMemory([]byte("?")); got != (memory{}) {
		t.Errorf("nonsense gives %+v", got)
	}
}
