package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// Client asks a running berth. Its methods are safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the berth behind a socket. It connects with
// each request.
func NewClient(socket string) *Client {
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			d := net.Dialer{Timeout: 5 * time.Second}
			return d.DialContext(ctx, "unix", socket)
		},
	}}}
}

// Error is an answer that is no success.
type Error struct {
	Code    int    // of HTTP; 0 when nobody answered
	Message string // what to tell a person
	Body    []byte // the answer, as JSON
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Get decodes the answer to a GET of a path, such as "/v1/status".
func (c *Client) Get(ctx context.Context, path string, query url.Values, into any) error {
	return c.do(ctx, http.MethodGet, path, query, func(body io.Reader) error {
		return json.NewDecoder(body).Decode(into)
	})
}

// Post decodes the answer to a POST without a body.
func (c *Client) Post(ctx context.Context, path string, into any) error {
	return c.do(ctx, http.MethodPost, path, nil, func(body io.Reader) error {
		return json.NewDecoder(body).Decode(into)
	})
}

// Raw returns the answer to a GET as it is.
func (c *Client) Raw(ctx context.Context, path string, query url.Values) ([]byte, error) {
	var raw []byte
	err := c.do(ctx, http.MethodGet, path, query, func(body io.Reader) (err error) {
		raw, err = io.ReadAll(body)
		return err
	})
	return raw, err
}

// Watch calls each with every answer to a GET that is repeated at an interval,
// until ctx ends (then it returns nil), the berth goes away, or each fails.
func (c *Client) Watch(ctx context.Context, path string, query url.Values, every time.Duration, each func([]byte) error) error {
	q := url.Values{"watch": {every.String()}}
	for k, v := range query {
		q[k] = v
	}
	err := c.do(ctx, http.MethodGet, path, q, func(body io.Reader) error {
		lines := bufio.NewReader(body)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return fmt.Errorf("berth went away: %w", err)
			}
			if err := each(line); err != nil {
				return err
			}
		}
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, use func(io.Reader) error) error {
	u := url.URL{Scheme: "http", Host: "berth", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return fmt.Errorf("ask berth: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		return use(resp.Body)
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var said struct{ Error string }
	if json.Unmarshal(body, &said) != nil || said.Error == "" {
		said.Error = fmt.Sprintf("berth answered %s", resp.Status)
	}
	return &Error{Code: resp.StatusCode, Message: said.Error, Body: body}
}

// unreachable says what to do when nobody answers.
func (c *Client) unreachable(err error) error {
	var message string
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, fs.ErrPermission):
		message = fmt.Sprintf("cannot reach berth at %s: permission denied: run as root or join group berth", c.socket)
	case errors.Is(err, fs.ErrNotExist):
		message = fmt.Sprintf("cannot reach berth at %s: there is no such socket: is berth running (systemctl status berth)? With another admin.socket, say --socket PATH", c.socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		message = fmt.Sprintf("cannot reach berth at %s: nobody listens: berth has stopped (systemctl status berth)", c.socket)
	default:
		message = fmt.Sprintf("cannot reach berth at %s: %v", c.socket, err)
	}
	return &Error{Message: message}
}
