package sockets

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxName is the longest name of a stored descriptor (FDNAME= in sd_notify(3)).
const maxName = 255

// fdName returns the name of a socket in the descriptor store, readable in
// `systemd-analyze fdstore`: "dns-udp-172.17.0.1%3A53". Names consist of ASCII
// characters without control characters and colons; others are percent-encoded.
func fdName(scope, network, address string) string {
	var b strings.Builder
	for _, c := range []byte(scope + "-" + network + "-" + address) {
		if c <= ' ' || c >= 0x7f || c == ':' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	name := b.String()
	if len(name) > maxName {
		sum := sha256.Sum256([]byte(name))
		tail := "-" + hex.EncodeToString(sum[:8])
		name = name[:maxName-len(tail)] + tail
	}
	return name
}

// store puts a socket into the service manager's descriptor store. FDPOLL=0:
// the manager must not drop it because of an error that is pending on it.
func store(name string, fd int) error {
	return notify("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, unix.UnixRights(fd))
}

// unstore removes a socket from the store.
func unstore(name string) error {
	return notify("FDSTOREREMOVE=1\nFDNAME="+name, nil)
}

// patience bounds how long a message may wait for a manager that is busy.
const patience = 5 // seconds

// notify sends a message to the service manager, if there is one. It is here
// because go-systemd's SdNotify cannot pass descriptors, and neither can
// a connected net.UnixConn.
func notify(state string, rights []byte) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: patience}); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	to := &unix.SockaddrUnix{Name: path} // "@" begins an abstract name
	if err := unix.Sendmsg(fd, []byte(state), rights, to, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}
