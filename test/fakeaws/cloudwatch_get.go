package fakeaws

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The limits of GetMetricData (API reference).
const (
	maxQueries    = 500
	maxDatapoints = 100800
)

var (
	queryID = regexp.MustCompile(`^[a-z][a-zA-Z0-9_]{0,254}$`)
	pageKey = regexp.MustCompile(`^page-([0-9]+)$`)
)

// query is one MetricDataQuery.
type query struct {
	id, label string
	metric    metricKey
	period    time.Duration
	stat      string
	hidden    bool
}

func parseQuery(m *members) query {
	q := query{id: m.text("Id", maxName)}
	if m.err == nil && !queryID.MatchString(q.id) {
		m.fail(invalidValue("The value %s for parameter %sId is invalid: it must begin with a lower-case letter.", q.id, m.path))
	}
	if r, ok := take[bool](m, "ReturnData"); ok {
		q.hidden = !r
	}
	label, _ := take[string](m, "Label")
	set, ok := m.structure("MetricStat")
	if m.err != nil {
		return q
	}
	if !ok {
		m.fail(missing(m.path + "MetricStat"))
		return q
	}
	metric, ok := set.structure("Metric")
	if !ok {
		set.fail(missing(set.path + "Metric"))
	}
	q.metric = metricKey{metric.namespaceText("Namespace"), metric.text("MetricName", maxName), metric.dimensions()}
	metric.done()
	set.adopt(metric.err)
	period, _ := take[int64](set, "Period")
	if !slices.Contains([]int64{1, 5, 10, 20, 30}, period) && (period <= 0 || period%60 != 0) {
		set.fail(invalidValue("The parameter %sPeriod must be 1, 5, 10, 20, 30 or a multiple of 60.", set.path))
	}
	q.period = time.Duration(period) * time.Second
	if q.stat = set.text("Stat", maxName); set.err == nil && !slices.Contains([]string{"Average", "Sum", "Minimum", "Maximum", "SampleCount"}, q.stat) {
		set.fail(invalidValue("The value %s for parameter %sStat is invalid.", q.stat, set.path))
	}
	set.done()
	m.adopt(set.err)
	if q.label = label; label == "" {
		q.label = q.metric.name
	}
	return q
}

// adopt takes over what is wrong with a part.
func (m *members) adopt(err *cwError) {
	if err != nil {
		m.fail(err)
	}
}

// getMetricData answers with whole pages: what is left has a NextToken.
func (c *CloudWatch) getMetricData(m *members) (map[string]any, *cwError) {
	start, hasStart := take[time.Time](m, "StartTime")
	end, hasEnd := take[time.Time](m, "EndTime")
	order, _ := take[string](m, "ScanBy")
	most, hasMost := take[int64](m, "MaxDatapoints")
	token, _ := take[string](m, "NextToken")
	ids := map[string]bool{}
	var queries []query
	n := m.list("MetricDataQueries", func(q *members) {
		parsed := parseQuery(q)
		if ids[parsed.id] {
			q.fail(invalidValue("The ID %s is there twice.", parsed.id))
		}
		ids[parsed.id] = true
		queries = append(queries, parsed)
	})
	m.done()
	skip := 0
	if page := pageKey.FindStringSubmatch(token); page != nil {
		skip, _ = strconv.Atoi(page[1])
	} else if token != "" {
		m.fail(&cwError{400, "InvalidNextToken", "InvalidNextToken", "The next token specified is invalid."})
	}
	switch {
	case m.err != nil:
		return nil, m.err
	case !hasStart:
		return nil, missing("StartTime")
	case !hasEnd:
		return nil, missing("EndTime")
	case !start.Before(end):
		return nil, invalidValue("The parameter StartTime must be less than the parameter EndTime.")
	case n == 0 || !slices.ContainsFunc(queries, func(q query) bool { return !q.hidden }):
		return nil, missing("MetricDataQueries")
	case n > maxQueries:
		return nil, invalidValue("The collection MetricDataQueries must not have a size greater than %d.", maxQueries)
	case order != "" && order != "TimestampAscending" && order != "TimestampDescending":
		return nil, invalidValue("The value %s for parameter ScanBy is invalid.", order)
	case hasMost && (most < 1 || most > maxDatapoints):
		return nil, invalidValue("The parameter MaxDatapoints must be from 1 to %d.", maxDatapoints)
	case !hasMost:
		most = maxDatapoints
	}
	if c.pageSize > 0 {
		most = min(most, int64(c.pageSize))
	}
	results, next := c.results(queries, start, end, order == "TimestampAscending", skip, int(most))
	out := map[string]any{"MetricDataResults": results, "Messages": []any{}}
	if next > 0 {
		out["NextToken"] = "page-" + strconv.Itoa(next)
	}
	return out, nil
}

// results returns the data points behind the first skip ones, most at most, and
// how many to skip for the next page, 0 if there is none.
func (c *CloudWatch) results(queries []query, start, end time.Time, ascending bool, skip, most int) (results []any, next int) {
	at := 0
	results = []any{}
	for _, q := range queries {
		if q.hidden {
			continue
		}
		status := c.status[q.metric.name]
		var points []point
		if status == "" || status == "PartialData" {
			points = c.points(q.metric, start.Truncate(time.Minute), end, q.period)
		}
		if ascending {
			slices.Reverse(points)
		}
		times, values := []any{}, []any{}
		cut := false
		for _, p := range points {
			switch {
			case at >= skip+most:
				next, cut = skip+most, true
			case at >= skip:
				times, values = append(times, p.at), append(values, p.stat(q.stat))
			}
			at++
		}
		if status == "" {
			status = "Complete"
			if cut {
				status = "PartialData"
			}
		}
		result := map[string]any{"Id": q.id, "Label": q.label, "StatusCode": status, "Timestamps": times, "Values": values}
		if strings.HasSuffix(status, "Error") || status == "Forbidden" {
			result["Messages"] = []any{map[string]any{"Code": status, "Value": "no data for this metric"}}
		}
		results = append(results, result)
	}
	return results, next
}

func (p point) stat(name string) float64 {
	switch name {
	case "Sum":
		return p.sum
	case "Minimum":
		return p.min
	case "Maximum":
		return p.max
	case "SampleCount":
		return p.count
	}
	return p.sum / p.count
}
