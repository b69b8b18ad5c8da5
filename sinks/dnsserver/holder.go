package dnsserver

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The states of the sockets that take a port, in /proc/net: the numbers of
// TCP_CLOSE and TCP_LISTEN in the kernel's include/net/tcp_states.h.
const (
	udpUnconnected = "07"
	tcpListen      = "0A"
)

// holder says which process has a port, for people: "named (pid 812)". What
// cannot be found out, for lack of rights mostly, is "another process".
func holder(proc, network string, at netip.AddrPort) string {
	const unknown = "another process"
	var inodes []string
	for _, table := range []string{network, network + "6"} {
		inodes = append(inodes, socketInodes(filepath.Join(proc, "net", table), at)...)
	}
	if len(inodes) == 0 {
		return unknown
	}
	fds, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "*"))
	if err != nil {
		return unknown
	}
	for _, fd := range fds {
		link, err := os.Readlink(fd)
		if err != nil {
			continue
		}
		inode, ok := strings.CutPrefix(link, "socket:[")
		if !ok || !slices.Contains(inodes, strings.TrimSuffix(inode, "]")) {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			comm = []byte("process")
		}
		return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(comm)), filepath.Base(dir))
	}
	return unknown
}

// socketInodes returns the inodes of the sockets in a table of /proc/net that
// stand in the way of binding to an address: those on it, and those on all
// addresses.
func socketInodes(path string, at netip.AddrPort) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var inodes []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 {
			continue
		}
		local, ok := parseProcAddr(fields[1])
		if !ok || local.Port() != at.Port() || fields[9] == "0" {
			continue
		}
		if fields[3] != udpUnconnected && fields[3] != tcpListen {
			continue // a connection, which is in nobody's way
		}
		if a := local.Addr().Unmap(); a.IsUnspecified() || a == at.Addr().Unmap().WithZone("") {
			inodes = append(inodes, fields[9])
		}
	}
	return inodes
}

// parseProcAddr parses an address and port as /proc/net has them: words of four
// bytes in the host's order, in hexadecimal, and the port behind a colon.
func parseProcAddr(s string) (netip.AddrPort, bool) {
	words, portHex, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(words)
	port, portErr := strconv.ParseUint(portHex, 16, 16)
	if !ok || err != nil || portErr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	a, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a, uint16(port)), ok
}
