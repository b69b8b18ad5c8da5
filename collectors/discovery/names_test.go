package discovery

import (
	"strings"
	"testing"
)

const testDomain = "berth.internal"

func TestParseName(t *testing.T) {
	for _, test := range []struct{ value, name, srv, alias string }{
		{"calc", "calc", "_calc._tcp.", "calc."},
		{" Calc ", "calc", "_calc._tcp.", "calc."},
		{"_calc._udp", "_calc._udp", "_calc._udp.", ""},
		{"_CALC._Tcp", "_calc._tcp", "_calc._tcp.", ""},
		{"calc.prod", "calc.prod", "_calc._tcp.prod.", "calc.prod."},
		{"_calc._tcp.prod.eu", "_calc._tcp.prod.eu", "_calc._tcp.prod.eu.", ""},
		{"calc.berth.internal", "calc", "_calc._tcp.", "calc."},
		{"_calc._tcp.berth.internal.", "_calc._tcp", "_calc._tcp.", ""},
		{"7", "7", "_7._tcp.", "7."},
		{"xn--bcher-kva", "xn--bcher-kva", "_xn--bcher-kva._tcp.", "xn--bcher-kva."},
		{strings.Repeat("x", 62), strings.Repeat("x", 62), "_" + strings.Repeat("x", 62) + "._tcp.", strings.Repeat("x", 62) + "."},
	} {
		n, err := parseName(test.value, testDomain)
		if err != nil {
			t.Errorf("%q: %v", test.value, err)
			continue
		}
		proto := "tcp"
		if n.proto != "" {
			proto = n.proto
		}
		alias := test.alias
		if alias != "" {
			alias += testDomain + "."
		}
		if n.String() != test.name || n.srv(proto, testDomain+".") != test.srv+testDomain+"." || n.alias(testDomain+".") != alias {
			t.Errorf("%q: got %q, %q, %q", test.value, n, n.srv(proto, testDomain+"."), n.alias(testDomain+"."))
		}
	}
}

func TestParseNameRefuses(t *testing.T) {
	x := strings.Repeat("x", 60) + "."
	for _, test := range []struct{ value, why string }{
		{"", "is empty"},
		{" ", "is empty"},
		{".", "ends in a dot"},
		{"a..b", "empty label"},
		{".a", "empty label"},
		{"calc..", "empty label"},
		{"calc.example.com.", "not below berth.internal"},
		{"_calc", "no protocol"},
		{"_calc.", "not below"},
		{"_calc.tcp", "no protocol"},
		{"_calc._", "no protocol"},
		{"_calc._icmp", "no protocol"},
		{"_._tcp", "empty label"},
		{"__a._tcp", "underscore"},
		{"my_calc", "underscore"},
		{"*.calc", "wildcard"},
		{"-calc", "hyphen"},
		{"calc-", "hyphen"},
		{"calc/80", "'/'"},
		{"ca lc", "' '"},
		{"kalc\u212a", "only letters"}, // the Kelvin sign folds to k
		{"calc\x00", "only letters"},
		{"calc\xff", "only letters"},
		{strings.Repeat("x", 63), "63 bytes"},
		{x + x + x + x + "x", "with its domain"},
	} {
		if _, err := parseName(test.value, testDomain); err == nil || !strings.Contains(err.Error(), test.why) {
			t.Errorf("%q: error %v, want one with %q", test.value, err, test.why)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, seed := range []string{"calc", "_calc._tcp", "a..b", "*.x", "calc.berth.internal.", "KELVIN\u212a", strings.Repeat("x.", 126), "_._", "-"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		n, err := parseName(value, testDomain)
		if err != nil {
			return
		}
		again, err := parseName(n.String(), testDomain)
		if err != nil || again != n {
			t.Errorf("%q is %+v, and that read again %+v, %v", value, n, again, err)
		}
		for _, full := range []string{n.srv("sctp", testDomain+"."), n.alias(testDomain + ".")} {
			if full == "" {
				continue
			}
			if len(full) > maxName+1 || full != lower(full) || !strings.HasSuffix(full, "."+testDomain+".") {
				t.Errorf("%q makes %q", value, full)
			}
			for label := range strings.SplitSeq(strings.TrimSuffix(full, "."), ".") {
				if checkLabel(strings.TrimPrefix(label, "_"), maxLabel) != nil || len(label) > maxLabel {
					t.Errorf("%q makes %q with the bad label %q", value, full, label)
				}
			}
		}
	})
}

func FuzzLabel(f *testing.F) {
	for _, seed := range []string{"Calc_Job", "--", "ä", strings.Repeat("a-", 60), "a  b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if s := Label(text); s != "" {
			if _, err := parseName(s, testDomain); err != nil || lower(s) != s {
				t.Errorf("Label(%q) = %q: %v", text, s, err)
			}
		}
	})
}

func TestLabel(t *testing.T) {
	for text, want := range map[string]string{"Calc_Job": "calc-job", "--": "", "a  b!": "a-b", "": "", "é": ""} {
		if got := Label(text); got != want {
			t.Errorf("Label(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestParseKey(t *testing.T) {
	for k, want := range map[string]settingKey{
		"SERVICE_NAME":            {0, "NAME"},
		"SERVICE_name":            {0, "NAME"},
		"SERVICE_80_NAME":         {80, "NAME"},
		"SERVICE_080_Check_Http":  {80, "CHECK_HTTP"},
		"SERVICE_65535_TAGS":      {65535, "TAGS"},
		"SERVICE_80_tcp_NAME":     {80, "TCP_NAME"}, // an attribute
		"SERVICE_80x":             {0, "80X"},
		"SERVICE_MY_REGION":       {0, "MY_REGION"},
		"SERVICE_0_NAME":          {},
		"SERVICE_65536_NAME":      {},
		"SERVICE_99999999999_TTL": {},
		"SERVICE_80":              {},
		"SERVICE_80_":             {},
		"SERVICE_":                {},
	} {
		got, err := parseKey(k)
		if got != want || (err != nil) != (want == settingKey{}) {
			t.Errorf("%s: %v, %v, want %v", k, got, err, want)
		}
	}
}

func FuzzPlan(f *testing.F) {
	f.Add("SERVICE_80_NAME", "calc,_api._tcp")
	f.Add("SERVICE_NAME", "*")
	f.Add("SERVICE_80_TTL", "-1s")
	f.Add("SERVICE_9999999_", "\x00")
	r, err := newRules(DefaultConfig())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		// Whatever one key says, the neighbour on port 81 keeps its name,
		// unless the key is about just that.
		c := container("a", map[string]string{key: value, "SERVICE_81_NAME": "_good._tcp"}, append(both("80/tcp=80"), both("81/tcp=81")...)...)
		sk, err := parseKey(key)
		if strings.HasPrefix(key, keyPrefix) && err == nil && (sk.port == 81 || sk.key == "IGNORE" || sk.key == "NETWORK") {
			return
		}
		snap := snapshot(c)
		v := r.evaluate(snap, testNow, new(memo))
		v.explain(c)
		for _, record := range v.set.Records {
			if record.Name == "_good._tcp.berth.internal." {
				return
			}
		}
		t.Errorf("%q=%q spoils another port: %v", key, value, v.set.Records)
	})
}
