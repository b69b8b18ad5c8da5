package node

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strings"
)

// identity is an ID and what it was derived from.
type identity struct {
	ID     string `json:"id,omitempty"`
	Source string `json:"source,omitempty"` // "machine-id", "hostname" or "address"
}

// fingerprint is what tells hosts apart outside EC2. Empty means unknown.
type fingerprint struct {
	MachineID   string `json:"machine_id,omitempty"`   // hashed
	ProductUUID string `json:"product_uuid,omitempty"` // hashed
	MAC         string `json:"mac,omitempty"`          // of the network card
	Hostname    string `json:"hostname,omitempty"`
	Address     string `json:"address,omitempty"`
}

// application is berth's own number for hashing what must not be shown, as
// sd_id128_get_machine_app_specific(3) has it: machine IDs are confidential.
const application = "berth: who this host is, version 1"

// hashID hashes a confidential ID with a keyed hash, like systemd does.
func hashID(id string) string {
	if id == "" {
		return ""
	}
	mac := hmac.New(sha256.New, []byte(id))
	mac.Write([]byte(application))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// contradicts reports whether two fingerprints are positively those of two
// hosts. A new name, a new network card or a new address alone are things that
// happen to a host.
func (f fingerprint) contradicts(now fingerprint) bool {
	differ := func(a, b string) bool { return a != "" && b != "" && a != b }
	if differ(f.MachineID, now.MachineID) || differ(f.ProductUUID, now.ProductUUID) {
		return true
	}
	comparable := f.ProductUUID != "" && now.ProductUUID != ""
	return !comparable && differ(f.Hostname, now.Hostname) && differ(f.MAC, now.MAC)
}

// or fills in what is unknown from an older fingerprint of the same host.
func (f fingerprint) or(old fingerprint) fingerprint {
	fill := func(p *string, s string) {
		if *p == "" {
			*p = s
		}
	}
	fill(&f.MachineID, old.MachineID)
	fill(&f.ProductUUID, old.ProductUUID)
	fill(&f.MAC, old.MAC)
	fill(&f.Hostname, old.Hostname)
	fill(&f.Address, old.Address)
	return f
}

// derive makes an ID: the beginning of the hostname, for people, and 32 bits of
// a hash over everything but the address, which is used only when there is
// neither a machine ID nor a name. It returns the zero identity if there is
// nothing to go by.
func (f fingerprint) derive() identity {
	id := identity{Source: "machine-id"}
	address := ""
	switch {
	case f.MachineID != "":
	case f.Hostname != "":
		id.Source = "hostname"
	case f.Address != "":
		id.Source = "address"
		address = f.Address
	default:
		return identity{}
	}
	h := sha256.New()
	for _, part := range []string{application, f.MachineID, f.ProductUUID, f.MAC, f.Hostname, address} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	first, _, _ := strings.Cut(f.Hostname, ".")
	name := cleanLabel(first, 54)
	if name == "" && address != "" {
		name = cleanLabel("ip-"+address, 54)
	}
	if name == "" {
		name = "host"
	}
	id.ID = name + "-" + hex.EncodeToString(h.Sum(nil)[:4])
	return id
}

// cleanLabel turns s into a DNS label of at most limit bytes, as near as it can
// get, or "".
func cleanLabel(s string, limit int) string {
	var b strings.Builder
	for _, c := range []byte(strings.ToLower(s)) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			b.WriteByte(c)
		case b.Len() > 0 && b.String()[b.Len()-1] != '-':
			b.WriteByte('-')
		}
	}
	label := b.String()
	return strings.Trim(label[:min(len(label), limit)], "-")
}

// usable reports whether other hosts may reach this one at a.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast()
}
