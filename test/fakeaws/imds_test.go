package fakeaws

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// request returns status and body.
func request(t *testing.T, method, url string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func start(t *testing.T) (*IMDS, string) {
	t.Helper()
	m, err := StartIMDS(Instance{ID: "i-00000000000000001"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	status, token := request(t, "PUT", m.URL()+tokenPath, ttlHeader, "60")
	if status != 200 || token == "" {
		t.Fatalf("token: %d %q", status, token)
	}
	return m, token
}

func TestTokens(t *testing.T) {
	m, token := start(t)
	for _, tc := range []struct {
		name, method string
		header       []string
		want         int
	}{
		{"no TTL", "PUT", nil, 400},
		{"TTL 0", "PUT", []string{ttlHeader, "0"}, 400},
		{"TTL too long", "PUT", []string{ttlHeader, "21601"}, 400},
		{"TTL not a number", "PUT", []string{ttlHeader, "1h"}, 400},
		{"longest TTL", "PUT", []string{ttlHeader, "21600"}, 200},
		{"through a proxy", "PUT", []string{ttlHeader, "60", "X-Forwarded-For", "10.0.0.1"}, 403},
		{"GET", "GET", []string{ttlHeader, "60"}, 405},
	} {
		if status, _ := request(t, tc.method, m.URL()+tokenPath, tc.header...); status != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, status, tc.want)
		}
	}
	id := m.URL() + "/latest/meta-data/instance-id"
	if status, body := request(t, "GET", id, tokenHeader, token); status != 200 || body != "i-00000000000000001" {
		t.Errorf("with a token: %d %q", status, body)
	}
	if status, _ := request(t, "GET", id, tokenHeader, "wrong"); status != 401 {
		t.Errorf("with a wrong token: %d, want 401", status)
	}
	if got := m.V1Attempts(); len(got) != 0 {
		t.Errorf("attempts without a token = %q, want none", got)
	}
	if status, _ := request(t, "GET", id); status != 401 {
		t.Errorf("without a token: %d, want 401", status)
	}
	if got := m.V1Attempts(); len(got) != 1 {
		t.Errorf("attempts without a token = %q, want one", got)
	}
	m.ExpireTokens()
	if status, _ := request(t, "GET", id, tokenHeader, token); status != 401 {
		t.Errorf("with an expired token: %d, want 401", status)
	}
}

func TestTree(t *testing.T) {
	m, token := start(t)
	m.Set("autoscaling/target-lifecycle-state", "InService")
	get := func(path string) (int, string) {
		return request(t, "GET", m.URL()+path, tokenHeader, token)
	}
	for path, want := range map[string]string{
		"/latest/meta-data/placement/region":                   "eu-central-1",
		"/latest/meta-data/placement/":                         "availability-zone\nregion",
		"/latest/meta-data/autoscaling/target-lifecycle-state": "InService",
	} {
		if status, body := get(path); status != 200 || body != want {
			t.Errorf("%s: %d %q, want %q", path, status, body, want)
		}
	}
	if _, body := get("/latest/meta-data/"); !strings.Contains(body, "\nplacement/\n") {
		t.Errorf("the list lacks a folder: %q", body)
	}
	m.Delete("autoscaling/target-lifecycle-state")
	for _, path := range []string{"/latest/meta-data/ipv6", "/latest/meta-data/autoscaling", "/latest/user-data", "/1.0/meta-data/ami-id", "/latest/meta-datax"} {
		if status, _ := get(path); status != 404 {
			t.Errorf("%s: %d, want 404", path, status)
		}
	}
	_, body := get("/latest/dynamic/instance-identity/document")
	var doc struct{ InstanceID, PrivateIP, AccountID string }
	if err := json.Unmarshal([]byte(body), &doc); err != nil || doc.InstanceID != "i-00000000000000001" || doc.PrivateIP != "10.20.30.40" {
		t.Errorf("document = %+v, %v", doc, err)
	}
	if status, _ := request(t, "POST", m.URL()+"/latest/meta-data/ami-id", tokenHeader, token); status != 405 {
		t.Errorf("POST: %d, want 405", status)
	}
}

func TestModes(t *testing.T) {
	m, token := start(t)
	url := m.URL() + "/latest/meta-data/instance-id"
	for mode, want := range map[Mode]int{Disabled: 403, Failing: 500, Normal: 200} {
		m.SetMode(mode)
		if status, _ := request(t, "GET", url, tokenHeader, token); status != want {
			t.Errorf("mode %d: %d, want %d", mode, status, want)
		}
	}
	m.SetMode(Silent)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	if resp, err := tr.RoundTrip(req); !errors.Is(err, context.DeadlineExceeded) {
		if err == nil {
			resp.Body.Close()
		}
		t.Errorf("silent: %v, want a timeout", err)
	}
	m.SetMode(Refusing)
	if conn, err := net.Dial("tcp", m.addr); err == nil {
		conn.Close()
		t.Error("refusing: connected")
	}
	m.SetMode(Normal)
	m.Switch(Instance{ID: "i-00000000000000002"})
	if status, _ := request(t, "GET", url, tokenHeader, token); status != 401 {
		t.Errorf("token of the instance before: %d, want 401", status)
	}
}
