// Package route53 keeps this host's records in a hosted zone of Amazon Route 53.
//
// # What it writes
//
// One record set for each service, type and host, which holds all values that
// this host has for the name. Its SetIdentifier says whose it is,
//
//	berth/v1/<account>/<region>/<cluster>/<host>
//
// and is compared whole: no other set is ever changed or removed, however much
// its name looks like this host's. The host's own names (<host>.<domain> and
// what is below) are simple A and AAAA records, which need no identifier because
// their name is one. The routing policy of the sets is [Config.Mode]:
//
//   - multivalue: a client gets up to eight sets of all hosts.
//   - weighted: a client gets the set of one host, drawn by the number of
//     instances. All sets of a name must have one TTL.
//   - simple: for services of one host. A set that somebody else has written is
//     left alone.
//
// Sets of two policies cannot share a name and type, so that the mode of a fleet
// is changed by changing the domain, or by removing the records first.
//
// # How it writes
//
// The newest set of records wins; nothing queues. A first change is sent at
// once, what follows within 250 ms goes out together. Batches are as large as
// Route 53 takes, and what goes comes first in them. A set is replaced by
// deleting what was written and creating what is wanted, in one transaction: it
// costs what an UPSERT costs, and is refused if anyone else changed the set. Then
// this one set is looked up and corrected, and the condition "identity" says so:
// two agents have one identity, or a person has edited it. A second agent is not
// noticed before one of the two changes or removes a set that both write.
//
// A batch is refused whole for one bad change. It is divided until that change is
// alone, and then held back and tried again ever more rarely; the condition
// "limit" (a hundred hosts have the name, say) or "refused" says which and why.
// Throttling and unfinished changes of others widen the time between batches,
// with jitter, up to a minute. Nothing is ever given up.
//
// [Sink.Applied] counts a set as soon as Route 53 has taken it, but not while
// some of it is held back. That all name servers have it is asked for with
// GetChange a few times, and shown in the metrics.
//
// # What it remembers
//
// What is about to be written is in the journal before each call, and what came
// of it afterwards. So neither a restart nor a crash needs a look at the zone: a
// set that may or may not have been written is written again, and one that may or
// may not have been deleted is looked up by its exact name.
//
// Without a journal (a new disk) sets are written by UPSERT, which takes over
// what an earlier life left there. The names of the first complete set are asked
// for once, within a minute, to find what else that life left at them. What it
// left at other names is not found.
//
// Records of another zone, identity or mode that the journal knows are deleted
// before the new ones are written, unless Route 53 refuses. [Sink.Remove]
// deletes all.
//
// # What it may
//
// It needs route53:ChangeResourceRecordSets and route53:ListResourceRecordSets on
// the zone; the first may be limited to names, types and actions, and a name that
// is not allowed holds up no other. route53:GetHostedZone and route53:GetChange
// are optional with [Config.ZoneID]; without it, ListHostedZonesByName is needed,
// and GetHostedZone if [Config.VPCID] is set.
//
// # What it waits for
//
// Nothing is written before it is certain which host this is, and nothing is
// deleted while the wanted set is partial or while it is not certain that the
// state belongs to this host.
package route53

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/route53"

	"github.com/berthd/berth/agent"
)

// Name is the component's name in logs, health conditions and metrics.
const Name = "route53"

// The names of the health conditions.
const (
	condZone     = "zone"     // there is not exactly one hosted zone
	condWrite    = "write"    // nothing can be written
	condRefused  = "refused"  // some records are refused
	condLimit    = "limit"    // the same, because of a quota
	condIdentity = "identity" // somebody else writes this host's records
	condJournal  = "journal"
	condSync     = "sync" // propagation cannot be followed
)

// recordAPI is what the sink asks of Route 53 about records.
type recordAPI interface {
	ChangeResourceRecordSets(context.Context, *route53.ChangeResourceRecordSetsInput, ...func(*route53.Options)) (*route53.ChangeResourceRecordSetsOutput, error)
	ListResourceRecordSets(context.Context, *route53.ListResourceRecordSetsInput, ...func(*route53.Options)) (*route53.ListResourceRecordSetsOutput, error)
	GetChange(context.Context, *route53.GetChangeInput, ...func(*route53.Options)) (*route53.GetChangeOutput, error)
}

// zoneAPI is what the sink asks of Route 53 about zones.
type zoneAPI interface {
	GetHostedZone(context.Context, *route53.GetHostedZoneInput, ...func(*route53.Options)) (*route53.GetHostedZoneOutput, error)
	ListHostedZonesByName(context.Context, *route53.ListHostedZonesByNameInput, ...func(*route53.Options)) (*route53.ListHostedZonesByNameOutput, error)
}

// Sink keeps this host's records in a hosted zone. Make it with New; its
// exported methods are safe for concurrent use, but Run and Remove exclude each
// other.
type Sink struct {
	cfg    Config
	log    *slog.Logger
	health *agent.Scope
	node   agent.NodeSource
	path   string // of the journal
	api    recordAPI
	zones  zoneAPI
	timing timing
	step   func(string) // called between any two steps that a crash may divide; for tests

	applied atomic.Uint64
	meters  meters
}

var (
	_ agent.RecordSink = (*Sink)(nil)
	_ agent.Metered    = (*Sink)(nil)
)

// New returns a sink, which calls nobody until Run. It reads the AWS SDK's
// configuration from its usual places; AWS_CA_BUNDLE counts.
func New(cfg Config, env agent.Env) (*Sink, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure %s: %w", Name, err)
	}
	client, err := newClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("configure %s: %w", Name, err)
	}
	s := &Sink{
		cfg:    cfg,
		log:    env.Log.With("component", Name),
		health: env.Health.Scope(Name),
		node:   env.Node,
		path:   filepath.Join(env.StateDir, "route53.journal"),
		api:    client,
		zones:  client,
		timing: defaultTiming(),
		step:   func(string) {},
	}
	s.health.Declare(condZone, agent.SeverityError, 0)
	s.health.Declare(condWrite, agent.SeverityError, 10*time.Second)
	s.health.Declare(condRefused, agent.SeverityError, 0)
	s.health.Declare(condLimit, agent.SeverityError, 0)
	s.health.Declare(condIdentity, agent.SeverityWarning, 0)
	s.health.Declare(condJournal, agent.SeverityError, 0)
	s.health.Declare(condSync, agent.SeverityWarning, 0)
	return s, nil
}

// newClient returns a client that leaves retries to the sink.
func newClient(cfg Config) (*route53.Client, error) {
	opts := []func(*awsconfig.LoadOptions) error{
		// A buildable client is one that the SDK can give AWS_CA_BUNDLE's roots.
		awsconfig.WithHTTPClient(awshttp.NewBuildableClient()),
		awsconfig.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		// The SDK's own client falls back to version 1 of the metadata service.
		awsconfig.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) {
			o.Client = imds.New(imds.Options{EnableFallback: aws.FalseTernary})
		}),
	}
	if cfg.Region != "" {
		opts = append(opts, awsconfig.WithRegion(cfg.Region))
	}
	ac, err := awsconfig.LoadDefaultConfig(context.Background(), opts...)
	if err != nil {
		return nil, fmt.Errorf("load AWS configuration: %w", err)
	}
	if ac.Region == "" {
		ac.Region = "us-east-1"
	}
	return route53.NewFromConfig(ac, func(o *route53.Options) {
		if cfg.Endpoint != "" {
			o.BaseEndpoint = aws.String(cfg.Endpoint)
		}
	}), nil
}

// Name returns "route53".
func (s *Sink) Name() string { return Name }

// Applied returns the sequence number of the newest set that Route 53 has taken
// whole.
func (s *Sink) Applied() uint64 { return s.applied.Load() }

// Run keeps the zone as wanted until ctx ends. Whatever fails is a health
// condition and tried again.
func (s *Sink) Run(ctx context.Context, want agent.Desired) error {
	w := newWorker(s)
	if !w.open(ctx) {
		return nil
	}
	defer w.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var node <-chan struct{}
		if s.node != nil {
			node = s.node.Changed()
		}
		w.turn(ctx, want)
		timer.Stop()
		if !w.wake.IsZero() {
			timer.Reset(max(0, time.Until(w.wake)))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-want.Changed():
		case <-node:
		case <-timer.C:
		}
	}
}

// Remove deletes every record that the journal says is this host's, in whichever
// zone, and returns nil when none is left. It tries until ctx ends; the error
// then says what was in the way. It is for the removal of berth, and for turning
// the sink off; Run must have returned.
func (s *Sink) Remove(ctx context.Context) error {
	w := newWorker(s)
	if !w.open(ctx) {
		return fmt.Errorf("remove records: %w", ctx.Err())
	}
	defer w.close()
	for {
		w.wake = time.Time{}
		err := w.removeAll(ctx)
		if err == nil {
			return nil
		}
		if !sleep(ctx, max(0, time.Until(w.wake))) {
			return fmt.Errorf("remove records: %w", err)
		}
	}
}

// sleep waits for d, and reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}
