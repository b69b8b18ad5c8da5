package cloudwatch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/smithy-go"
)

// attemptTime bounds one attempt, of which the SDK's standard retries make three.
const attemptTime = 10 * time.Second

// metadata returns a client of the instance metadata service that never falls
// back to version 1, as the SDK's own would.
func metadata() *imds.Client {
	return imds.New(imds.Options{EnableFallback: aws.FalseTernary})
}

// loadConfig reads the SDK's configuration from its usual places, and calls
// nobody. The region is empty if none of them says which.
func loadConfig(region string) (aws.Config, error) {
	opts := []func(*awsconfig.LoadOptions) error{
		// A buildable client is one that the SDK can give AWS_CA_BUNDLE's roots.
		awsconfig.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(attemptTime)),
		awsconfig.WithRetryMode(aws.RetryModeStandard),
		awsconfig.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) { o.Client = metadata() }),
	}
	if region != "" {
		opts = append(opts, awsconfig.WithRegion(region))
	}
	cfg, err := awsconfig.LoadDefaultConfig(context.Background(), opts...)
	if err != nil {
		return cfg, fmt.Errorf("load AWS configuration: %w", err)
	}
	return cfg, nil
}

func newClient(cfg aws.Config, endpoint string) *cloudwatch.Client {
	return cloudwatch.NewFromConfig(cfg, func(o *cloudwatch.Options) {
		if endpoint != "" {
			o.BaseEndpoint = aws.String(endpoint)
		}
	})
}

// outcome is what became of a request.
type outcome int

const (
	accepted    outcome = iota
	throttled           // too many requests
	denied              // not by this host's role
	unsigned            // no credentials, or none that are good
	refused             // not like this
	failed              // AWS failed, or it is not AWS
	unreachable         // it was not sent
	unknown             // no answer: it may have been accepted
)

// String returns the outcome's name in metrics.
func (o outcome) String() string {
	return [...]string{"accepted", "throttled", "denied", "credentials", "refused", "failed", "unreachable", "unknown"}[o]
}

// errCredentials is around the error of those who provide credentials.
var errCredentials = errors.New("no AWS credentials")

// errRegion means that nobody has said which region to send to.
var errRegion = errors.New("no AWS region is known")

// classify goes by the codes of the API reference, "Common errors" and those of
// PutMetricData and GetMetricData, in the forms of both protocols.
func classify(err error) outcome {
	switch {
	case err == nil:
		return accepted
	case errors.Is(err, errCredentials), errors.Is(err, errRegion):
		return unsigned
	}
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		if neverSent(err) {
			return unreachable
		}
		return unknown
	}
	switch code := strings.TrimSuffix(api.ErrorCode(), "Exception"); code {
	case "Throttling", "Throttled", "RequestThrottled", "RequestLimitExceeded", "TooManyRequests", "SlowDown":
		return throttled
	case "AccessDenied", "AuthorizationError", "OptInRequired", "NotAuthorized":
		return denied
	case "ExpiredToken", "UnrecognizedClient", "InvalidClientTokenId", "MissingAuthenticationToken", "IncompleteSignature",
		"InvalidSignature", "SignatureDoesNotMatch", "RequestExpired", "InvalidToken":
		return unsigned
	case "InvalidParameterValue", "InvalidParameterCombination", "MissingParameter", "MissingRequiredParameter", "InvalidFormat",
		"Validation", "ValidationError", "LimitExceeded", "RequestEntityTooLarge":
		return refused
	}
	return failed
}

// neverSent reports whether a request did not leave this host.
func neverSent(err error) bool {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// hint says what to do about an error; policy is the file with the permissions
// that are needed.
func hint(err error, policy string) string {
	switch classify(err) {
	case throttled:
		return "the account's quota of requests is used up: send less often, or have the quota raised"
	case denied:
		return "this host's role lacks permissions: see " + policy + " among berth's examples, and its namespace"
	case unsigned:
		if errors.Is(err, errRegion) {
			return "say which one: set the region in berth's configuration, or AWS_REGION"
		}
		return "give this host an instance profile, or the SDK's usual files and variables; check that its clock is right"
	case refused:
		return "this is an error in berth: please report it, with this message"
	case failed, unknown, unreachable, accepted:
	}
	return "check the network, the proxy and the endpoint of this host"
}

// say returns what AWS says, without the SDK's wrapping.
func say(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode() + ": " + api.ErrorMessage()
	}
	return err.Error()
}

// signer makes sure that there are credentials, so that their absence is told
// from what the service says.
func signer(ctx context.Context, cfg aws.Config) error {
	if cfg.Credentials == nil {
		return errCredentials
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		return fmt.Errorf("%w: %w", errCredentials, err)
	}
	return nil
}
