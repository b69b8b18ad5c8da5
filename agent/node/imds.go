package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"regexp"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// NewIMDS returns a client of the instance metadata service which never uses
// version 1, keeps the SDK's short timeouts (250 ms to connect, 500 ms for an
// answer to begin, 5 s for an operation), and follows
// AWS_EC2_METADATA_DISABLED, and AWS_EC2_METADATA_SERVICE_ENDPOINT unless
// cfg.IMDSEndpoint is set. It goes through no proxy: HTTP_PROXY is meant for the
// world outside, and a proxy would answer for another instance. Each operation
// is tried once; callers retry at their own pace.
func NewIMDS(cfg Config) *imds.Client {
	return imds.New(imds.Options{
		Endpoint:       cfg.IMDSEndpoint,
		EnableFallback: aws.FalseTernary,
		Retryer:        aws.NopRetryer{},
		HTTPClient:     metadataHTTP(),
	})
}

// metadataHTTP is the SDK's HTTP client without proxies. imds.New adds its
// timeouts.
func metadataHTTP() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.Proxy = nil })
}

// instance is what the metadata service says of this instance.
type instance struct {
	ID, Account, Region, Zone, Type string
	IPv4, IPv6                      netip.Addr
}

// fetcher asks once. A test may put another in its place.
type fetcher interface {
	fetch(ctx context.Context) (instance, error)
}

type metadata struct{ client *imds.Client }

var instanceForm = regexp.MustCompile(`^i-[0-9a-f]{8,32}$`)

func (m metadata) fetch(ctx context.Context) (instance, error) {
	doc, err := m.client.GetInstanceIdentityDocument(ctx, nil)
	if err != nil {
		return instance{}, fmt.Errorf("get instance identity: %w", err)
	}
	if !instanceForm.MatchString(doc.InstanceID) {
		return instance{}, fmt.Errorf("get instance identity: %q is not an instance ID", doc.InstanceID)
	}
	inst := instance{
		ID:      doc.InstanceID,
		Account: doc.AccountID,
		Region:  doc.Region,
		Zone:    doc.AvailabilityZone,
		Type:    doc.InstanceType,
	}
	if inst.IPv4, err = m.address(ctx, "local-ipv4"); err != nil {
		return instance{}, err
	}
	if inst.IPv6, err = m.address(ctx, "ipv6"); err != nil {
		return instance{}, err
	}
	return inst, nil
}

// address returns an item of the metadata tree, or an invalid address when the
// instance has none.
func (m metadata) address(ctx context.Context, item string) (netip.Addr, error) {
	out, err := m.client.GetMetadata(ctx, &imds.GetMetadataInput{Path: item})
	if err != nil {
		if status, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && status.HTTPStatusCode() == http.StatusNotFound {
			return netip.Addr{}, nil
		}
		return netip.Addr{}, fmt.Errorf("get %s: %w", item, err)
	}
	defer out.Content.Close()
	text, err := io.ReadAll(io.LimitReader(out.Content, 1<<10))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("get %s: %w", item, err)
	}
	a, err := netip.ParseAddr(string(text))
	if err != nil || !usable(a) {
		return netip.Addr{}, fmt.Errorf("get %s: %q is not an address of a host", item, text)
	}
	return a, nil
}
