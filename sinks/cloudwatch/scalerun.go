package cloudwatch

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
)

const (
	// scaleTime bounds all of what Run does.
	scaleTime = 45 * time.Second
	// regionTime bounds the question which region this machine is in.
	regionTime = 5 * time.Second
	// lookBack is at least how far back readings are looked for, so that it can be
	// told of one that is too old how old it is.
	lookBack = time.Hour

	scalePolicyFile = "cluster-scale-policy.json"
)

// Scale sums up how full an ECS cluster is in one figure for its autoscaling.
//
// Of a cluster, ECS says which part of its CPU and which of its memory is
// reserved. Two alarms on one of them remove hosts while the other is short, and
// those on both work against each other. So one status is made of both, and
// published as a metric: 2 (hosts are to be added) if either is at its maximum or
// above, 0 (one may be removed) if both are at their minimum or below, else 1.
//
// What is missing or too old never makes for 0: if nothing else makes for 2, then
// 1 is published. If CloudWatch cannot be asked, nothing is published; alarms must
// take missing data as no reason to act (treat_missing_data = "notBreaching").
//
// It is meant to be run every minute, on any machine; on several at once, all
// publish the same, and alarms on the maximum add hosts if one says so, and remove
// one if all do.
type Scale struct {
	cfg ScaleConfig
	aws aws.Config
	now func() time.Time
}

// ScaleReport is what was read, what follows, and where it was published.
type ScaleReport struct {
	Cluster string    `json:"cluster"`
	Region  string    `json:"region"`
	Time    time.Time `json:"time"`
	Status  Status    `json:"status"`
	Meaning string    `json:"meaning"` // "scale in", "keep" or "scale out"
	Why     string    `json:"why"`
	// Missing says that not all readings could be used.
	Missing   bool      `json:"missing"`
	Readings  []Reading `json:"readings"` // of CPU, then of memory
	Published bool      `json:"published"`
	Namespace string    `json:"namespace"`
	Metric    string    `json:"metric"`
	Dimension string    `json:"dimension"` // its value is the cluster's name
}

// NewScale returns a Scale, which calls nobody until Run. It reads the AWS SDK's
// configuration from its usual places.
func NewScale(cfg ScaleConfig) (*Scale, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	loaded, err := loadConfig(cfg.Region)
	if err != nil {
		return nil, err
	}
	return &Scale{cfg: cfg, aws: loaded, now: time.Now}, nil
}

// Run reads, decides, and publishes unless it is a dry run, within 45 s. With an
// error, nothing is known to be published; its text says what to do.
func (s *Scale) Run(ctx context.Context, dryRun bool) (*ScaleReport, error) {
	ctx, cancel := context.WithTimeout(ctx, scaleTime)
	defer cancel()
	if s.aws.Region == "" {
		s.aws.Region = regionHere(ctx)
	}
	if s.aws.Region == "" {
		return nil, advise(errRegion)
	}
	if err := signer(ctx, s.aws); err != nil {
		return nil, advise(err)
	}
	client := newClient(s.aws, s.cfg.Endpoint)
	r := &ScaleReport{
		Cluster: s.cfg.Cluster, Region: s.aws.Region, Time: s.now(),
		Namespace: s.cfg.Namespace, Metric: s.cfg.Metric, Dimension: s.cfg.Dimension,
		Readings: []Reading{
			{Metric: cpuReservation, Max: float64(s.cfg.CPUMax), Min: float64(s.cfg.CPUMin)},
			{Metric: memoryReservation, Max: float64(s.cfg.MemoryMax), Min: float64(s.cfg.MemoryMin)},
		},
	}
	if err := s.read(ctx, client, r); err != nil {
		return nil, advise(fmt.Errorf("read the reservations of cluster %s: %w", s.cfg.Cluster, err))
	}
	for i := range r.Readings {
		r.Readings[i].judge(r.Time, s.cfg.MaxAge.Std())
		r.Missing = r.Missing || r.Readings[i].Missing != ""
	}
	r.Status, r.Why = decide(r.Readings...)
	r.Meaning = r.Status.String()
	if dryRun {
		return r, nil
	}
	_, err := client.PutMetricData(ctx, &cloudwatch.PutMetricDataInput{
		Namespace: aws.String(s.cfg.Namespace),
		MetricData: []types.MetricDatum{{
			MetricName: aws.String(s.cfg.Metric), Value: aws.Float64(float64(r.Status)), Unit: types.StandardUnitNone, Timestamp: aws.Time(r.Time),
			Dimensions: []types.Dimension{{Name: aws.String(s.cfg.Dimension), Value: aws.String(s.cfg.Cluster)}},
		}},
	})
	if err != nil {
		return nil, advise(fmt.Errorf("publish %s %d (%s) of cluster %s: %w", s.cfg.Metric, r.Status, r.Status, s.cfg.Cluster, err))
	}
	r.Published = true
	return r, nil
}

// read fills in the newest values of the readings.
func (s *Scale) read(ctx context.Context, client *cloudwatch.Client, r *ScaleReport) error {
	in := &cloudwatch.GetMetricDataInput{
		StartTime: aws.Time(r.Time.Add(-max(lookBack, 2*s.cfg.MaxAge.Std()))),
		EndTime:   aws.Time(r.Time.Add(time.Minute)), // it is exclusive, and clocks differ
		ScanBy:    types.ScanByTimestampDescending,
	}
	index := make(map[string]*Reading)
	for i := range r.Readings {
		id := fmt.Sprint("r", i)
		index[id] = &r.Readings[i]
		in.MetricDataQueries = append(in.MetricDataQueries, types.MetricDataQuery{
			Id: aws.String(id),
			MetricStat: &types.MetricStat{
				Period: aws.Int32(60), Stat: aws.String("Average"),
				Metric: &types.Metric{
					Namespace: aws.String("AWS/ECS"), MetricName: aws.String(r.Readings[i].Metric),
					Dimensions: []types.Dimension{{Name: aws.String("ClusterName"), Value: aws.String(s.cfg.Cluster)}},
				},
			},
		})
	}
	for pages := cloudwatch.NewGetMetricDataPaginator(client, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, result := range page.MetricDataResults {
			if reading := index[aws.ToString(result.Id)]; reading != nil {
				reading.take(result)
			}
		}
	}
	return nil
}

// take keeps the newest value of a result.
func (r *Reading) take(result types.MetricDataResult) {
	for i, at := range result.Timestamps {
		if i < len(result.Values) && (r.At == nil || at.After(*r.At)) {
			r.At, r.Percent = aws.Time(at), aws.Float64(result.Values[i])
		}
	}
	switch result.StatusCode {
	case types.StatusCodeInternalError, types.StatusCodeForbidden:
		r.Missing = "CloudWatch answers " + string(result.StatusCode)
		for _, m := range result.Messages {
			r.Missing += ": " + aws.ToString(m.Value)
		}
	case types.StatusCodeComplete, types.StatusCodePartialData: // of which the rest follows
	}
}

// regionHere returns the region of the instance that this is, or "".
func regionHere(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, regionTime)
	defer cancel()
	out, err := metadata().GetRegion(ctx, &imds.GetRegionInput{})
	if err != nil {
		return ""
	}
	return out.Region
}

// scaleError is an error with what to do about it.
type scaleError struct {
	err  error
	hint string
}

func (e *scaleError) Error() string { return e.err.Error() + "\n" + e.hint }
func (e *scaleError) Unwrap() error { return e.err }

func advise(err error) error {
	return &scaleError{err, "what to do: " + hint(err, scalePolicyFile)}
}
