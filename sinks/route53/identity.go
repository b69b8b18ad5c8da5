package route53

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/berthd/berth/agent"
)

// maxIdentifier is the longest SetIdentifier that Route 53 takes, in characters
// (API reference, ResourceRecordSet).
const maxIdentifier = 128

const identityPrefix = "berth/v1/"

// identity says whose a record set is. Two are the same if all of their fields
// are, and never because one begins like the other.
type identity struct{ account, region, cluster, host string }

func newIdentity(n agent.Node, cluster string) identity {
	return identity{cmp.Or(n.Account, "-"), cmp.Or(n.Region, "-"), cluster, n.ID}
}

// String returns the SetIdentifier: berth/v1/<account>/<region>/<cluster>/<host>.
// What would be too long is berth/v1/#<SHA-256 of the rest in hexadecimal>.
func (id identity) String() string {
	rest := strings.Join([]string{id.account, id.region, id.cluster, id.host}, "/")
	if len(identityPrefix)+len(rest) > maxIdentifier {
		sum := sha256.Sum256([]byte(rest))
		return identityPrefix + "#" + hex.EncodeToString(sum[:])
	}
	return identityPrefix + rest
}

// owns reports whether a SetIdentifier is that of this identity.
func (id identity) owns(setIdentifier string) bool {
	got, ok := parseIdentity(setIdentifier)
	if !ok {
		return false
	}
	if got.account == "#" {
		return setIdentifier == id.String()
	}
	return got == id
}

// parseIdentity parses a SetIdentifier whole. A hashed one has the account "#"
// and the hash as its host.
func parseIdentity(s string) (identity, bool) {
	rest, ok := strings.CutPrefix(s, identityPrefix)
	if !ok {
		return identity{}, false
	}
	if hash, ok := strings.CutPrefix(rest, "#"); ok {
		_, err := hex.DecodeString(hash)
		return identity{account: "#", host: hash}, err == nil && len(hash) == 2*sha256.Size
	}
	f := strings.Split(rest, "/")
	if len(f) != 4 || f[0] == "" || f[1] == "" || f[2] == "" || f[3] == "" {
		return identity{}, false
	}
	return identity{f[0], f[1], f[2], f[3]}, true
}

// cmpName returns a domain name in the form in which names are compared: lower
// case, with the final dot, and with Route 53's escapes (\052) resolved. The
// empty name stays empty.
func cmpName(s string) string {
	if s == "" {
		return ""
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return strings.TrimSuffix(strings.ToLower(b.String()), ".") + "."
}

// within reports whether a name is a zone's or below it.
func within(name, zone string) bool { return name == zone || strings.HasSuffix(name, "."+zone) }
