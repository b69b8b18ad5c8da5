package sockets

import (
	"errors"
	"fmt"
	"net/netip"
)

// carrierGradeNAT is not public either, though netip does not call it private
// (RFC 6598).
var carrierGradeNAT = netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 0, 0}), 10)

// Bindable returns why a service for this host and its containers must not listen
// on a, or nil: only loopback, private and link-local addresses will do, the last
// of IPv6 with their interface. use says what the addresses are for, as in
// "serve", and risk what strangers could do at a public one.
func Bindable(a netip.Addr, use, risk string) error {
	a = a.Unmap()
	switch {
	case !a.IsValid():
		return errors.New("an address is missing")
	case a.IsUnspecified():
		return fmt.Errorf("%s stands for all addresses of the host, public ones too: list the ones to %s", a, use)
	case a.IsLoopback(), a.IsPrivate(), carrierGradeNAT.Contains(a):
		return nil
	case a.IsLinkLocalUnicast():
		if a.Is6() && a.Zone() == "" {
			return fmt.Errorf("%s is link-local: add its interface, as in %s%%docker0", a, a)
		}
		return nil
	}
	return fmt.Errorf("%s is a public address: %s", a, risk)
}
