package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// Bounds of what a check takes from whom it checks.
const (
	maxCheckHeader = 64 << 10 // bytes
	maxCheckBody   = 64 << 10 // bytes; what follows is not waited for
	maxRedirects   = 3
)

// netProber returns a prober on the host's network. Each check has a connection
// of its own: one that is kept open says nothing of who could connect now.
//
// A GET passes when it is answered with 2xx and the first 64 KiB of the body
// have come in time. Redirects are followed on the same address and port only.
func netProber() prober {
	dialer := &net.Dialer{KeepAlive: -1}
	client := checkClient(dialer)
	return func(ctx context.Context, target netip.AddrPort, path string) error {
		if path != "" {
			return request(ctx, client, "http://"+target.String()+path)
		}
		conn, err := dialer.DialContext(ctx, "tcp", target.String())
		if err != nil {
			return err
		}
		_ = conn.Close() // it was open: that is all that was asked
		return nil
	}
}

// checkClient returns the client behind GETs. It uses no proxy, whatever berth's
// environment says: that is not for what runs on this host.
func checkClient(dialer *net.Dialer) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxCheckHeader,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects || req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
}

// request succeeds if a GET of the URL does.
func request(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "berth")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode/100 != 2 {
		return statusError(resp.StatusCode)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxCheckBody))
	return err
}

// statusError is an answer with another status than 2xx.
type statusError int

// Error says what was answered, in words of our own.
func (e statusError) Error() string {
	text := fmt.Sprintf("answered %d %s", int(e), http.StatusText(int(e)))
	if e/100 == 3 {
		text += ": a check follows no redirect to another place"
	}
	return text
}

// explainFailure says in a few words why a check failed, the same for the same
// reason: without the ports of our side.
func explainFailure(err error, timeout time.Duration) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("no answer within %v", timeout)
	}
	if inner, ok := errors.AsType[*net.OpError](err); ok {
		if inner.Timeout() {
			return fmt.Sprintf("no answer within %v", timeout)
		}
		if errno, ok := errors.AsType[syscall.Errno](inner.Err); ok {
			return errno.Error() // without the system call's name
		}
		return inner.Err.Error()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "the connection was closed before the end of the answer"
	}
	if inner := errors.Unwrap(err); inner != nil {
		return inner.Error() // without the URL, which is said already
	}
	return err.Error()
}
