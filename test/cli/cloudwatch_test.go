package cli

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/berthd/berth/test/fakeaws"
)

// cmdCloudWatch steers a fake CloudWatch.
func cmdCloudWatch(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	if w.cloudwatch == nil {
		fake, err := fakeaws.StartCloudWatch()
		ts.Check(err)
		w.cloudwatch = fake
		w.free = append(w.free, fake.Close)
		ts.Setenv("CLOUDWATCH", fake.URL())
	}
	switch {
	case !neg && len(args) == 1 && args[0] == "start":
	case !neg && len(args) == 4 && args[0] == "reserve":
		ago, err := time.ParseDuration(args[3])
		ts.Check(err)
		for i, metric := range []string{"CPUReservation", "MemoryReservation"} {
			if args[i+1] == "-" {
				continue
			}
			v, err := strconv.ParseFloat(args[i+1], 64)
			ts.Check(err)
			w.cloudwatch.Put("AWS/ECS", metric, map[string]string{"ClusterName": "prod"}, time.Now().Add(-ago), v)
		}
	case !neg && len(args) == 2 && args[0] == "deny":
		w.cloudwatch.Always(args[1], fakeaws.Denied)
	case !neg && len(args) == 1 && args[0] == "heal":
		w.cloudwatch.Heal()
	case !neg && (len(args) == 1 || len(args) == 2) && args[0] == "data":
		want, err := regexp.Compile("(?s)" + strings.Join(args[1:], ""))
		ts.Check(err)
		var said string
		err = poll(func() error {
			var b strings.Builder
			for _, d := range w.cloudwatch.Data() {
				fmt.Fprintf(&b, "%s %s{%s} %v\n", d.Namespace, d.Name, d.Dimensions, d.Sum)
			}
			if said = b.String(); !want.MatchString(said) {
				return fmt.Errorf("it has:\n%s", said)
			}
			return nil
		})
		if err != nil {
			ts.Fatalf("cloudwatch: no match for %q: %v", want, err)
		}
		fmt.Fprint(ts.Stdout(), said)
	default:
		ts.Fatalf("usage: cloudwatch start | reserve CPU MEMORY AGO | deny ACTION | heal | data [PATTERN]")
	}
}
