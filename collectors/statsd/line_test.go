package statsd

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
)

// rewritten returns what becomes of a datagram, as lines, and the tally.
func rewritten(t testing.TB, r *rewriter, payload int, o *origin, datagram string) ([]string, tally) {
	t.Helper()
	sink := &memory{payload: payload}
	r.out = newPacker(sink)
	r.datagram([]byte(datagram), false, o, 0)
	r.out.flush()
	for _, d := range sink.sent {
		if len(d) > payload || !strings.HasSuffix(d, "\n") {
			t.Errorf("a datagram of %d bytes, want at most %d and a newline at the end: %q", len(d), payload, d)
		}
	}
	tally := r.tally
	r.tally = tallyZero
	return linesOf(sink.sent), tally
}

var tallyZero tally

func theOrigin() *origin {
	return newOrigin(idOf(7), "web", []tag{{"service:shop", 7}, {"env:prod", 3}}, new(account))
}

const (
	added = "service:shop,env:prod"
	cid   = "0000000000000000000000000000000000000000000000000000000000000007"
)

// What becomes of a line in each mode. An empty want means that it stays as it
// is, and "-" that it is malformed.
func TestGrammar(t *testing.T) {
	for _, tc := range []struct {
		line, tags, cid, strip string
	}{
		// Metrics, by type and value.
		{line: "a:1|c", tags: "a:1|c|#" + added, cid: "a:1|c|c:" + cid},
		{line: "a:1|c|@0.1", tags: "a:1|c|@0.1|#" + added, cid: "a:1|c|@0.1|c:" + cid},
		{line: "a:1|c|@0", tags: "a:1|c|@0|#" + added, cid: "a:1|c|@0|c:" + cid},
		{line: "a:1|c|@1.5|#x:y", tags: "a:1|c|@1.5|#" + added + ",x:y", cid: "a:1|c|@1.5|#x:y|c:" + cid},
		{line: "a:1|c|@x", tags: "a:1|c|@x|#" + added, cid: "a:1|c|@x|c:" + cid},
		{line: "a:+5|g", tags: "a:+5|g|#" + added, cid: "a:+5|g|c:" + cid},
		{line: "a:-5|g", tags: "a:-5|g|#" + added, cid: "a:-5|g|c:" + cid},
		{line: "a:1e3|h", tags: "a:1e3|h|#" + added, cid: "a:1e3|h|c:" + cid},
		{line: "a:NaN|g", tags: "a:NaN|g|#" + added, cid: "a:NaN|g|c:" + cid},
		{line: "a:1:2:3|d", tags: "a:1:2:3|d|#" + added, cid: "a:1:2:3|d|c:" + cid},
		{line: "a:21::22|d", tags: "a:21::22|d|#" + added, cid: "a:21::22|d|c:" + cid},
		{line: "a:1:2:|d", tags: "a:1:2:|d|#" + added, cid: "a:1:2:|d|c:" + cid},
		{line: "a:user:7|s", tags: "a:user:7|s|#" + added, cid: "a:user:7|s|c:" + cid},
		{line: "a:1|m", tags: "a:1|m|#" + added, cid: "a:1|m|c:" + cid},
		{line: "a:1|C", tags: "a:1|C|#" + added, cid: "a:1|C|c:" + cid},
		{line: "1:1|c", tags: "1:1|c|#" + added, cid: "1:1|c|c:" + cid},

		// Tags.
		{line: "a:1|c|#x", tags: "a:1|c|#" + added + ",x", cid: "a:1|c|#x|c:" + cid},
		{line: "a:1|c|#", tags: "a:1|c|#" + added, cid: "a:1|c|#|c:" + cid},
		{line: "a:1|c|#,", tags: "a:1|c|#" + added + ",,", cid: "a:1|c|#,|c:" + cid},
		{line: "a:1|c|#|T1", tags: "a:1|c|#" + added + "|T1", cid: "a:1|c|#|T1|c:" + cid, strip: "a:1|c|#"},
		{line: "a:1|c|#x:1|#y:2", tags: "a:1|c|#x:1|#" + added + ",y:2", cid: "a:1|c|#x:1|#y:2|c:" + cid},
		{line: "a:1|c|#url:http://h:80/#top@me", tags: "a:1|c|#" + added + ",url:http://h:80/#top@me", cid: "a:1|c|#url:http://h:80/#top@me|c:" + cid},
		{line: "a:1|c|#service:mine", tags: "a:1|c|#env:prod,service:mine", cid: "a:1|c|#service:mine|c:" + cid},
		{line: "a:1|c|#env,x,service:mine", tags: "a:1|c|#env,x,service:mine", cid: "a:1|c|#env,x,service:mine|c:" + cid},
		{line: "a:1|c|#services:mine,en", tags: "a:1|c|#" + added + ",services:mine,en", cid: "a:1|c|#services:mine,en|c:" + cid},

		// Names with tags of other dialects.
		{line: "n#k=v:1|c", tags: "n#k=v:1|c|#" + added, cid: "n#k=v:1|c|c:" + cid},
		{line: "n,k=v,l=w:1|c", tags: "n,k=v,l=w:1|c|#" + added, cid: "n,k=v,l=w:1|c|c:" + cid},
		{line: "n[k=v]:1|c", tags: "n[k=v]:1|c|#" + added, cid: "n[k=v]:1|c|c:" + cid},

		// Fields, in any order.
		{line: "a:1|c|T1656581400", tags: "a:1|c|T1656581400|#" + added, cid: "a:1|c|T1656581400|c:" + cid, strip: "a:1|c"},
		{line: "a:1|c|T0|@0.5", tags: "a:1|c|T0|@0.5|#" + added, cid: "a:1|c|T0|@0.5|c:" + cid, strip: "a:1|c|@0.5"},
		{line: "a:1|c|T-99999999999999999999", tags: "a:1|c|T-99999999999999999999|#" + added, cid: "a:1|c|T-99999999999999999999|c:" + cid, strip: "a:1|c"},
		{line: "a:1|c|c:abc", tags: "a:1|c|c:abc|#" + added, strip: "a:1|c"},
		{line: "a:1|c|c:abc|#t", tags: "a:1|c|c:abc|#" + added + ",t", strip: "a:1|c|#t"},
		{line: "a:1|c|#t|c:ci-abc,in-42", tags: "a:1|c|#" + added + ",t|c:ci-abc,in-42", strip: "a:1|c|#t"},
		{line: "a:1|c|#t|c:cid-abc", tags: "a:1|c|#" + added + ",t|c:cid-abc", strip: "a:1|c|#t"},
		{line: "a:1|c|e:it-false,cn-x,pu-y|card:none", tags: "a:1|c|e:it-false,cn-x,pu-y|card:none|#" + added, strip: "a:1|c"},
		{line: "a:1|c|card:low", tags: "a:1|c|card:low|#" + added, cid: "a:1|c|card:low|c:" + cid, strip: "a:1|c"},
		{line: "a:1|c|#dd.internal.entity_id:uid,x:y", tags: "a:1|c|#" + added + ",dd.internal.entity_id:uid,x:y"},
		{line: "a:1|c|@0.1|#x:y|c:abc|T1|e:z", tags: "a:1|c|@0.1|#" + added + ",x:y|c:abc|T1|e:z", strip: "a:1|c|@0.1|#x:y"},
		{line: "a:1|c||#x", tags: "a:1|c||#" + added + ",x", cid: "a:1|c||#x|c:" + cid},
		{line: "datadog.dogstatsd.client.metrics:7|c|#client:go,transport:udp", tags: "datadog.dogstatsd.client.metrics:7|c|#" + added + ",client:go,transport:udp", cid: "datadog.dogstatsd.client.metrics:7|c|#client:go,transport:udp|c:" + cid},

		// Events: their lengths are bytes, and their text may be anything.
		{line: "_e{5,4}:title|text", tags: "_e{5,4}:title|text|#" + added, cid: "_e{5,4}:title|text|c:" + cid},
		{line: "_e{5,8}:ti|#e|te|#x|xt", tags: "_e{5,8}:ti|#e|te|#x|xt|#" + added, cid: "_e{5,8}:ti|#e|te|#x|xt|c:" + cid},
		{line: `_e{2,6}:é|a\\nb` + "é", tags: "-", cid: "-"}, // 7 bytes
		{line: `_e{2,7}:é|a\\nb` + "é", tags: `_e{2,7}:é|a\\nb` + "é|#" + added, cid: `_e{2,7}:é|a\\nb` + "é|c:" + cid},
		{line: "_e{1,1}:t|x|d:1|h:me|k:key|p:low|s:src|t:error|#x:y", tags: "_e{1,1}:t|x|d:1|h:me|k:key|p:low|s:src|t:error|#" + added + ",x:y", cid: "_e{1,1}:t|x|d:1|h:me|k:key|p:low|s:src|t:error|#x:y|c:" + cid},
		{line: "_e{1,1}:t|x|#x:y|c:abc|t:info", tags: "_e{1,1}:t|x|#" + added + ",x:y|c:abc|t:info", strip: "_e{1,1}:t|x|#x:y|t:info"},
		{line: "_e{1,0}:t|", tags: "_e{1,0}:t||#" + added, cid: "_e{1,0}:t||c:" + cid},
		{line: "_e{5,40}:title|text", tags: "-", cid: "-"},
		{line: "_e{9,4}:title|text", tags: "-", cid: "-"},
		{line: "_e{5}:title", tags: "-", cid: "-"},
		{line: "_e{,}:|", tags: "-", cid: "-"},
		{line: "_e{5,4:title|text", tags: "-", cid: "-"},
		{line: "_e{99999999999999999999,1}:t|x", tags: "-", cid: "-"},
		{line: "_e{1,99999999999999999999}:t|x", tags: "-", cid: "-"},
		{line: "_e{18446744073709551617,1}:t|x", tags: "-", cid: "-"}, // 1<<64 + 1
		{line: "_e{1,1}", tags: "-", cid: "-"},
		{line: "_e{", tags: "-", cid: "-"},

		// Service checks: a message is last, and may be anything.
		{line: "_sc|up|0", tags: "_sc|up|0|#" + added, cid: "_sc|up|0|c:" + cid},
		{line: "_sc|up|4", tags: "_sc|up|4|#" + added, cid: "_sc|up|4|c:" + cid},
		{line: "_sc|up|0|#x:y", tags: "_sc|up|0|#" + added + ",x:y", cid: "_sc|up|0|#x:y|c:" + cid},
		{line: "_sc|up|0|m:all|#x well|c:z", tags: "_sc|up|0|#" + added + "|m:all|#x well|c:z", cid: "_sc|up|0|c:" + cid + "|m:all|#x well|c:z"},
		{line: "_sc|up|2|d:1|h:me|#x:y|c:abc|m:boom", tags: "_sc|up|2|d:1|h:me|#" + added + ",x:y|c:abc|m:boom", strip: "_sc|up|2|d:1|h:me|#x:y|m:boom"},
		{line: "_sc|up|", tags: "-", cid: "-"},
		{line: "_sc|up", tags: "-", cid: "-"},
		{line: "_sc||0", tags: "-", cid: "-"},
		{line: "_sc|", tags: "-", cid: "-"},
		{line: "_scfoo:1|c", tags: "_scfoo:1|c|#" + added, cid: "_scfoo:1|c|c:" + cid},
		{line: "_e:1|c", tags: "_e:1|c|#" + added, cid: "_e:1|c|c:" + cid},

		// What is none of them.
		{line: "garbage", tags: "-", cid: "-"},
		{line: "a:1", tags: "-", cid: "-"},
		{line: "a|c", tags: "-", cid: "-"},
		{line: ":1|c", tags: "-", cid: "-"},
		{line: "a:|c", tags: "-", cid: "-"},
		{line: "a:1|", tags: "-", cid: "-"},
		{line: "a:1||#x", tags: "-", cid: "-"},
		{line: "|", tags: "-", cid: "-"},
		{line: "_", tags: "-", cid: "-"},
		{line: "\x00\xff", tags: "-", cid: "-"},

		// Bytes that are no text are passed on as they are.
		{line: "a\x00\xff:1|c|#x:\xfe", tags: "a\x00\xff:1|c|#" + added + ",x:\xfe", cid: "a\x00\xff:1|c|#x:\xfe|c:" + cid},
	} {
		for _, end := range []string{"", "\n", "\r\n"} {
			cr := strings.TrimSuffix(end, "\n")
			for _, m := range []struct {
				name string
				r    *rewriter
				want string
			}{
				{"tags", &rewriter{mode: ModeTags}, tc.tags},
				{"cid", &rewriter{mode: ModeCID}, tc.cid},
				{"none", &rewriter{mode: ModeNone}, map[bool]string{true: "-", false: ""}[tc.tags == "-"]},
				{"strip", &rewriter{mode: ModeNone, strip: true}, map[bool]string{true: "-", false: tc.strip}[tc.tags == "-"]},
			} {
				want := []string{m.want + cr}
				switch m.want {
				case "":
					want = []string{tc.line + cr}
				case "-":
					want = nil
				}
				got, counts := rewritten(t, m.r, 1432, theOrigin(), tc.line+end)
				if len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
					t.Errorf("%s: %q: got %q, want %q", m.name, tc.line+end, got, want)
				}
				if counts.lines != 1 || counts.malformed != uint64(1-len(want)) {
					t.Errorf("%s: %q: got %+v", m.name, tc.line+end, counts)
				}
			}
		}
	}
}

// Lines are told apart by newlines, wherever these are, and none is empty.
func TestFraming(t *testing.T) {
	for datagram, want := range map[string]string{
		"":                         "",
		"\n":                       "",
		"\n\n\r\n\r":               "",
		"a:1|c":                    "a:1|c;",
		"\na:1|c\n\nb:1|c\n":       "a:1|c;b:1|c;",
		"a:1|c\r\nb:1|c\r\n":       "a:1|c\r;b:1|c\r;",
		"bad\na:1|c\nbad\nb:1|c":   "a:1|c;b:1|c;",
		"a:1|c\nb:1|c\nc:1|c\nbad": "a:1|c;b:1|c;c:1|c;",
	} {
		got, _ := rewritten(t, &rewriter{mode: ModeNone}, 1432, theOrigin(), datagram)
		if text := strings.Join(got, ";"); text != strings.TrimSuffix(want, ";") && !(want == "" && len(got) <= 1 && text == "") {
			t.Errorf("%q: got %q, want %q", datagram, text, want)
		}
	}
}

// The limits of a datagram, at the byte.
func TestLimits(t *testing.T) {
	for _, payload := range []int{minPayload, 1432, maxPayload} {
		for _, tc := range []struct {
			name                      string
			size                      int
			tagged, untagged, tooLong uint64
		}{
			{"room for its tags to the byte", payload - 1 - len("|#"+added), 1, 0, 0},
			{"one byte too many for its tags", payload - len("|#"+added), 0, 1, 0},
			{"a whole datagram", payload - 1, 0, 1, 0},
			{"one byte more than a datagram", payload, 0, 1, 1},
			{"far more", payload + 3000, 0, 1, 1},
		} {
			line := strings.Repeat("n", tc.size-len(":1|c")) + ":1|c"
			o := theOrigin()
			got, counts := rewritten(t, &rewriter{mode: ModeTags}, payload, o, "a:1|c\n"+line+"\nb:1|c\n")
			if len(got) != int(3-tc.tooLong) || got[0] != "a:1|c|#"+added || got[len(got)-1] != "b:1|c|#"+added {
				t.Errorf("%d: %s: got %d lines: %.50q", payload, tc.name, len(got), got)
			}
			if a := o.account; a.untagged.Load() != counts.untagged || a.tooLong.Load() != counts.tooLong || a.dropped() != counts.tooLong {
				t.Errorf("%d: %s: of the sender are %d untagged, %d too long and %d dropped, want %+v",
					payload, tc.name, a.untagged.Load(), a.tooLong.Load(), a.dropped(), counts)
			}
			if counts.untagged != tc.untagged-tc.tooLong || counts.tooLong != tc.tooLong {
				t.Errorf("%d: %s: got %+v", payload, tc.name, counts)
			}
			if tc.tagged == 1 && got[1] != line+"|#"+added {
				t.Errorf("%d: %s: got no tags", payload, tc.name)
			}
		}
	}
}

// A client's tag counts whatever the length of its key, and without a value, too.
func TestShortKeys(t *testing.T) {
	o := newOrigin(idOf(7), "web", []tag{{"e:prod", 1}, {"s:shop", 1}}, new(account))
	for line, want := range map[string]string{
		"a:1|c|#e":        "a:1|c|#s:shop,e",
		"a:1|c|#e:":       "a:1|c|#s:shop,e:",
		"a:1|c|#x,s:y":    "a:1|c|#e:prod,x,s:y",
		"a:1|c|#e,s":      "a:1|c|#e,s",
		"a:1|c|#,env,s2:": "a:1|c|#e:prod,s:shop,,env,s2:",
	} {
		if got, _ := rewritten(t, &rewriter{mode: ModeTags}, 1432, o, line); len(got) != 1 || got[0] != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}

// A container may send as many lines a second as the limit; who is none has no
// limit, as many share it.
func TestRateLimit(t *testing.T) {
	r := &rewriter{mode: ModeNone, limit: 2, out: newPacker(new(discard))}
	web, host := theOrigin(), newOrigin("", sharedName, nil, new(account))
	for i, now := range []time.Duration{time.Hour, time.Hour + time.Second} {
		r.datagram([]byte("a:1|c\nb:1|c\nc:1|c"), false, web, now)
		r.datagram([]byte("a:1|c\nb:1|c\nc:1|c"), false, host, now)
		want := uint64(i + 1)
		if got := web.account; got.lines.Load() != 3*want || got.rateLimited.Load() != want || got.dropped() != want {
			t.Errorf("%d of %d lines were too many, want %d", got.rateLimited.Load(), got.lines.Load(), want)
		}
		if n := host.account.dropped(); n != 0 || r.tally.rateLimited != want {
			t.Errorf("%d lines of the host were dropped, and %d of all", n, r.tally.rateLimited)
		}
	}
}

// While lines wait in the port, it is called even if there are no new ones, until
// it says that they are gone.
func TestPortIsCalledAgain(t *testing.T) {
	port := &busyPort{again: time.Second}
	p := newPacker(port)
	p.flush()
	if port.calls != 0 {
		t.Error("the port was called without a line")
	}
	fill := func(datagrams int) {
		for range datagrams {
			p.room(p.payload)
			p.data, p.lines = append(p.data, make([]byte, p.payload)...), 1
		}
		p.finish()
	}
	fill(packets) // which hands them on
	for port.calls < 5 {
		before := port.calls
		if p.flush(); port.calls != before+1 {
			t.Fatalf("the port was called %d times, want once more", port.calls)
		}
	}
	port.again = 0
	p.flush()
	p.flush()
	if port.calls != 6 || p.again != 0 {
		t.Errorf("the port was called %d times, want 6", port.calls)
	}
}

// busyPort wants to be called again.
type busyPort struct {
	memory
	again time.Duration
	calls int
}

func (b *busyPort) Send([]agent.Packet) time.Duration {
	b.calls++
	return b.again
}

// Malformed lines may be passed on.
func TestPassMalformed(t *testing.T) {
	got, counts := rewritten(t, &rewriter{mode: ModeTags, pass: true}, 1432, theOrigin(), "bad\na:1|c\n")
	if want := []string{"bad", "a:1|c|#" + added}; !slices.Equal(got, want) || counts.passed != 1 || counts.malformed != 0 {
		t.Errorf("got %q, %+v, want %q", got, counts, want)
	}
}

// FuzzRewrite holds the rewriter against its definition, written down as plainly
// as can be, on any datagram: untagged output is the multiset of the lines that
// came in, byte for byte; tagged output parses to the line and its tags; no
// datagram is over the limit; every line is accounted for.
func FuzzRewrite(f *testing.F) {
	for _, seed := range []string{
		"a:1|c", "a:1:2|d|@0.1|#x:y,z|T1|c:abc\n", "_e{5,4}:title|text|#x\n_sc|up|0|#a|m:b|#c\r\n", "\n\n\r", "a:1|c|#service:x,env:y\n",
		"_e{1,1}:a|b", "bad\n_sc||\n_e{9,9}:a|b\nn[k=v]:1|c", "a:1|c|#", "\x00\xff:1|c|#\xff", strings.Repeat("a:1|c\n", 500),
	} {
		f.Add([]byte(seed), uint16(512), byte(0))
		f.Add([]byte(seed), uint16(8192), byte(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, payload uint16, settings byte) {
		checkRewrite(t, data, min(max(int(payload), minPayload), maxPayload), settings)
	})
}

// checkRewrite compares what becomes of a datagram with the definition.
func checkRewrite(t testing.TB, data []byte, payload int, settings byte) {
	if len(data) > slotSize {
		return // never read
	}
	pass, stripped := settings&1 != 0, settings&2 != 0
	for _, mode := range []Mode{ModeNone, ModeTags, ModeCID} {
		var want []string
		var counts tally
		for line := range bytes.SplitSeq(data, []byte("\n")) {
			if len(line) == 0 || string(line) == "\r" {
				continue
			}
			counts.lines++
			whole, bare, ok := defined(string(line), mode, stripped)
			switch {
			case !ok && !pass:
				counts.malformed++
			case !ok && len(line) < payload:
				counts.passed++
				want = append(want, string(line))
			case !ok:
				counts.tooLong++
			case len(whole) < payload:
				want = append(want, whole)
			case len(bare) < payload:
				counts.untagged++
				want = append(want, bare)
			default:
				counts.tooLong++
			}
		}
		got, said := rewritten(t, &rewriter{mode: mode, pass: pass, strip: stripped}, payload, theOrigin(), string(data))
		if len(got) == 1 && got[0] == "" {
			got = nil
		}
		if !slices.Equal(got, want) {
			t.Fatalf("mode %s, strip %v, pass %v, payload %d: %q became\n%q, want\n%q", mode, stripped, pass, payload, data, got, want)
		}
		said.datagrams, said.bytes = 0, 0
		if said != counts {
			t.Fatalf("mode %s: %q: got %+v, want %+v", mode, data, said, counts)
		}
	}
}

var (
	aMetric = regexp.MustCompile(`(?s)^([^|:]+:[^|]+\|[^|]+)(.*)$`)
	aCheck  = regexp.MustCompile(`(?s)^(_sc\|[^|]+\|[^|]+)(.*)$`)
	anEvent = regexp.MustCompile(`(?s)^_e\{([0-9]{1,7}),([0-9]{1,7})\}:(.*)$`)
)

// defined returns what becomes of a line if there is room for it, and if there is
// none, by the definition: a line is a head and fields that begin with a bar.
func defined(line string, mode Mode, stripped bool) (whole, bare string, ok bool) {
	body := strings.TrimSuffix(line, "\r")
	cr := line[len(body):]
	head, rest, message := "", "", ""
	plain := false
	switch {
	case strings.HasPrefix(body, "_e{"):
		m := anEvent.FindStringSubmatch(body)
		if m == nil {
			return "", "", false
		}
		title, _ := strconv.Atoi(m[1])
		text, _ := strconv.Atoi(m[2])
		end := title + len("|") + text
		if end > len(m[3]) || m[3][title] != '|' {
			return "", "", false
		}
		head, rest = body[:len(body)-len(m[3])+end], m[3][end:]
		if rest != "" && rest[0] != '|' {
			return "", "", false
		}
	case strings.HasPrefix(body, "_sc|"):
		m := aCheck.FindStringSubmatch(body)
		if m == nil {
			return "", "", false
		}
		head, rest = m[1], m[2]
		if at := strings.Index(rest, "|m:"); at >= 0 {
			rest, message = rest[:at], rest[at:]
		}
	default:
		m := aMetric.FindStringSubmatch(body)
		if m == nil {
			return "", "", false
		}
		head, rest, plain = m[1], m[2], true
	}
	var fields []string
	if rest != "" {
		fields = strings.Split(rest[1:], "|")
	}
	told := false
	last := -1
	fields = slices.DeleteFunc(fields, func(field string) bool {
		origin := strings.HasPrefix(field, "c:") || strings.HasPrefix(field, "e:")
		if stripped && (origin || strings.HasPrefix(field, "card:") || plain && strings.HasPrefix(field, "T")) {
			return true
		}
		told = told || origin
		return false
	})
	for i, field := range fields {
		if strings.HasPrefix(field, "#") {
			last = i
		}
	}
	told = told || last >= 0 && strings.Contains(fields[last], "dd.internal.entity_id:")
	join := func(fields []string) string {
		text := head
		for _, field := range fields {
			text += "|" + field
		}
		return text + message + cr
	}
	bare = join(fields)
	switch {
	case mode == ModeCID && !told:
		fields = append(fields, "c:"+cid)
	case mode == ModeTags && last < 0:
		fields = append(fields, "#"+added)
	case mode == ModeTags:
		own := fields[last][1:]
		texts := []string{}
		for _, ours := range strings.Split(added, ",") {
			key, _, _ := strings.Cut(ours, ":")
			if !slices.ContainsFunc(strings.Split(own, ","), func(tag string) bool { k, _, _ := strings.Cut(tag, ":"); return k == key }) {
				texts = append(texts, ours)
			}
		}
		if own != "" {
			texts = append(texts, own)
		}
		fields[last] = "#" + strings.Join(texts, ",")
	}
	return join(fields), bare, true
}

// Random lines made of what lines are made of.
func TestRandomDatagrams(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("BERTH_STATSD_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	defer func() {
		if t.Failed() {
			t.Logf("replay: BERTH_STATSD_SEED=%d", seed)
		}
	}()
	rng := rand.New(rand.NewPCG(seed, 0))
	pieces := []string{
		"a", "metric.name", ":", ":", "1", "|", "|c", "|g", "|#", "|#x:y", ",", "service:q", "env", "_e{1,1}:a|b", "_e{", "_sc|", "_sc|n|0", "|m:",
		"|c:abc", "|e:x", "|T1", "|@0.1", "|card:low", "\n", "\n", "\r\n", "é", "\x00", "{", "}", fmt.Sprint(idOf(7)), strings.Repeat("x", 300),
	}
	for range 5000 {
		var b strings.Builder
		for range rng.IntN(30) {
			b.WriteString(pieces[rng.IntN(len(pieces))])
		}
		checkRewrite(t, []byte(b.String()), []int{512, 1432, 8192}[rng.IntN(3)], byte(rng.IntN(4)))
		if t.Failed() {
			return
		}
	}
}
