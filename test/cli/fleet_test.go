package cli

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/berthd/berth/test/fakeaws"
)

// awsEnv makes the AWS SDK look nowhere but at itself.
var awsEnv = map[string]string{
	"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "",
	"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
	"AWS_CA_BUNDLE": "", "AWS_REGION": "eu-central-1",
}

// cmdRoute53 steers a fake Route 53. Each zone has a record set of another host.
func cmdRoute53(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	switch {
	case !neg && len(args) == 3 && args[0] == "zone":
		if w.route == nil {
			fake, err := fakeaws.StartRoute53()
			ts.Check(err)
			w.route = fake
			w.free = append(w.free, fake.Close)
			ts.Setenv("ROUTE53", fake.URL())
		}
		id := w.route.AddZone(fakeaws.Zone{Name: args[2]})
		w.route.Put(id, fakeaws.RRSet{
			Name: "_web._tcp." + args[2] + ".", Type: "SRV", SetIdentifier: "berth/v1/-/-/default/host-10",
			MultiValue: true, TTL: 5, Values: []string{"1 1 80 host-10." + args[2] + "."},
		})
		ts.Setenv(args[1], id)
	case !neg && (len(args) == 2 || len(args) == 3) && args[0] == "sets":
		pattern := ""
		if len(args) == 3 {
			pattern = args[2]
		}
		want, err := regexp.Compile("(?s)" + pattern)
		ts.Check(err)
		var said string
		err = poll(func() error {
			var b strings.Builder
			for _, s := range w.route.Sets(ts.Getenv(args[1])) {
				fmt.Fprintf(&b, "%s %s %s %q\n", s.Name, s.Type, strings.Join(s.Values, ", "), s.SetIdentifier)
			}
			if said = b.String(); !want.MatchString(said) {
				return fmt.Errorf("the zone holds:\n%s", said)
			}
			return nil
		})
		if err != nil {
			ts.Fatalf("route53: no match for %q: %v", pattern, err)
		}
		fmt.Fprint(ts.Stdout(), said)
	default:
		ts.Fatalf("usage: route53 zone NAME DOMAIN | route53 sets NAME [PATTERN]")
	}
}
