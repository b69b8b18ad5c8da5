package route53

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/route53"
)

// Where no token is to be had, as behind a proxy, there are no credentials: that
// is no reason to ask version 1 of the metadata service, as the SDK would.
func TestCredentials_NoFallbackToIMDSv1(t *testing.T) {
	tokens, others := 0, 0
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPut {
			tokens++
		} else {
			others++
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(metadata.Close)
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
		"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.URL,
	} {
		t.Setenv(k, v)
	}
	client, err := newClient(Config{Endpoint: "http://127.0.0.1:9"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.GetHostedZone(t.Context(), &route53.GetHostedZoneInput{Id: aws.String("Z1")})
	if err == nil {
		t.Error("a call without credentials succeeded")
	}
	if tokens == 0 {
		t.Error("no token was asked for")
	}
	if others > 0 {
		t.Errorf("%d requests without a token", others)
	}
}
