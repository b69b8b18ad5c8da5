package fakeaws

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Zone is a hosted zone.
type Zone struct {
	ID      string // made up where empty
	Name    string
	Private bool
	VPCs    []string // of a private zone
}

// RRSet is a resource record set of a hosted zone.
type RRSet struct {
	Name, Type    string // the name with the final dot
	SetIdentifier string
	Weight        int64 // of a weighted set
	Weighted      bool
	MultiValue    bool
	TTL           int64
	Values        []string
}

// Limits are the quotas of an account. A rate of 0 is no limit.
type Limits struct {
	// Calls in a second and the burst, for the whole account and again for each
	// action (Developer Guide, "Throttling of API requests").
	CallRate, CallBurst float64
	// ChangeRate and ChangeBurst limit the single changes in a second.
	ChangeRate, ChangeBurst float64
	// Sets is how many weighted or multivalue sets one name and type may have.
	Sets int
	// Values is how many values one set may have.
	Values int
	// ZoneSets is how many record sets a zone may have.
	ZoneSets int
}

// DefaultLimits returns the documented quotas, without those of rates: what is
// throttled is for a test to say.
func DefaultLimits() Limits { return Limits{Sets: 100, Values: 400, ZoneSets: 10000} }

// The limits of one ChangeResourceRecordSets request. An UPSERT counts twice.
const (
	maxElements   = 1000
	maxCharacters = 32000
)

// Fault is what goes wrong with a call.
type Fault int

const (
	// Throttled answers "Rate exceeded".
	Throttled Fault = iota
	// PriorRequest answers PriorRequestNotComplete.
	PriorRequest
	// Internal answers with status 500.
	Internal
	// Denied answers AccessDenied.
	Denied
	// CutBefore does nothing and cuts the connection.
	CutBefore
	// CutAfter does what was asked, and cuts the connection in place of an answer.
	CutAfter
	// HangAfter does what was asked, and never answers. CloudWatch only.
	HangAfter
	// Expired answers that the credentials are no longer good. CloudWatch only.
	Expired
)

// Route53 is an account's Route 53. All methods are safe for concurrent use.
type Route53 struct {
	url    string
	server *http.Server
	served chan struct{}

	mu        sync.Mutex
	zones     map[string]*hostedZone
	changes   map[string]*change
	limits    Limits
	buckets   map[string]*bucket
	busy      time.Duration
	syncPolls int
	syncAfter time.Duration
	listXML   bool
	faults    map[string][]Fault
	always    map[string]Fault
	denied    []string // names
	calls     map[string]int
	sizes     []int
	failed    int
	serial    int
	observe   func(Arrival)
}

// Arrival is one ChangeResourceRecordSets call.
type Arrival struct {
	At      time.Time // when its first byte was read
	Changes []string  // "CREATE _web._tcp.svc.test. SRV" and so on, in their order
}

type hostedZone struct {
	Zone
	sets      map[setKey]RRSet
	busyUntil time.Time
	changed   map[string]int // writes by SetIdentifier
}

// change is one accepted change on its way to the name servers.
type change struct {
	at    time.Time
	polls int
}

// bucket is a token bucket; it is filled when it is looked at.
type bucket struct {
	tokens float64
	at     time.Time
}

// take takes n tokens if they are there.
func (b *bucket) take(n, rate, burst float64, now time.Time) bool {
	if b.at.IsZero() {
		b.tokens = burst
	} else {
		b.tokens = min(burst, b.tokens+rate*now.Sub(b.at).Seconds())
	}
	b.at = now
	// A batch larger than the burst passes when the bucket is full.
	if b.tokens < min(n, burst) {
		return false
	}
	b.tokens -= n
	return true
}

// StartRoute53 starts a service without zones. Close it.
func StartRoute53() (*Route53, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start route 53: %w", err)
	}
	r := &Route53{
		url:     "http://" + l.Addr().String(),
		served:  make(chan struct{}),
		zones:   make(map[string]*hostedZone),
		changes: make(map[string]*change),
		limits:  DefaultLimits(),
		buckets: make(map[string]*bucket),
		faults:  make(map[string][]Fault),
		always:  make(map[string]Fault),
		calls:   make(map[string]int),
	}
	r.server = &http.Server{Handler: http.HandlerFunc(r.serve), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		defer close(r.served)
		_ = r.server.Serve(l)
	}()
	return r, nil
}

// ServeRoute53 starts a service that ends with the test.
func ServeRoute53(t testing.TB) *Route53 {
	t.Helper()
	r, err := StartRoute53()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// Close ends the service.
func (r *Route53) Close() {
	r.server.Close()
	<-r.served
}

// URL returns the service's address, for an endpoint.
func (r *Route53) URL() string { return r.url }

// AddZone adds a hosted zone with its SOA and NS records, and returns its ID.
func (r *Route53) AddZone(z Zone) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serial++
	if z.ID == "" {
		z.ID = fmt.Sprintf("Z%013d", r.serial)
	}
	name, err := parseName(z.Name)
	if err != nil {
		panic(err)
	}
	z.Name = name
	hz := &hostedZone{Zone: z, sets: make(map[setKey]RRSet), changed: make(map[string]int)}
	for _, s := range []RRSet{
		{Name: name, Type: "NS", TTL: 172800, Values: []string{"ns-0.awsdns-00.com."}},
		{Name: name, Type: "SOA", TTL: 900, Values: []string{"ns-0.awsdns-00.com. awsdns-hostmaster.amazon.com. 1 7200 900 1209600 86400"}},
	} {
		hz.sets[s.key()] = s
	}
	r.zones[z.ID] = hz
	return z.ID
}

// Put changes a set behind everyone's back, or removes it if it has no values.
// No limit applies.
func (r *Route53) Put(zone string, s RRSet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(s.Values) == 0 {
		delete(r.zones[zone].sets, s.key())
		return
	}
	r.zones[zone].sets[s.key()] = s
}

// RemoveZone removes a zone with all that is in it.
func (r *Route53) RemoveZone(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.zones, id)
}

// Deny makes every batch that touches one of these names be refused with
// AccessDenied, as a policy with a condition on the names does.
func (r *Route53) Deny(names ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.denied = names
}

// Sets returns the record sets of a zone but for those at its apex, in the
// order of ListResourceRecordSets, with their values sorted.
func (r *Route53) Sets(zone string) []RRSet {
	r.mu.Lock()
	defer r.mu.Unlock()
	hz := r.zones[zone]
	var out []RRSet
	for _, s := range hz.sorted() {
		if s.Name != hz.Name {
			s.Values = slices.Sorted(slices.Values(s.Values))
			out = append(out, s)
		}
	}
	return out
}

// Writes returns how many changes of a zone each SetIdentifier had so far; those
// of simple records count for "".
func (r *Route53) Writes(zone string) map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.zones[zone].changed)
}

// Calls returns how many calls there were of each action, refused ones too.
func (r *Route53) Calls() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.calls)
}

// ResetCalls counts from zero again.
func (r *Route53) ResetCalls() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.calls)
	r.sizes = nil
}

// BatchSizes returns how many changes each accepted batch had.
func (r *Route53) BatchSizes() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sizes)
}

// Failures returns how many ChangeResourceRecordSets calls were not answered
// with success.
func (r *Route53) Failures() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// Observe calls f for each change batch that can be read, whatever becomes of it.
// f is called with the service's lock held, so it must not use the service.
func (r *Route53) Observe(f func(Arrival)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observe = f
}

// SetLimits changes the quotas; the buckets are full again.
func (r *Route53) SetLimits(l Limits) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limits = l
	clear(r.buckets)
}

// SetSync sets when a change is INSYNC: once it has been asked for so many times
// and is so old.
func (r *Route53) SetSync(polls int, after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.syncPolls, r.syncAfter = polls, after
}

// SetBusy sets how long a zone refuses other changes after one.
func (r *Route53) SetBusy(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy = d
}

// ListErrors makes a refused batch be answered in the older form, with a list of
// messages in an InvalidChangeBatch element.
func (r *Route53) ListErrors(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listXML = on
}

// Inject makes the next calls of an action fail, one for each fault.
func (r *Route53) Inject(action string, faults ...Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults[action] = append(r.faults[action], faults...)
}

// Always makes every call of an action fail until Heal.
func (r *Route53) Always(action string, f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.always[action] = f
}

// Heal ends all faults.
func (r *Route53) Heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.faults)
	clear(r.always)
}

// fault returns the fault of this call, if it has one.
func (r *Route53) fault(action string) (Fault, bool) {
	if q := r.faults[action]; len(q) > 0 {
		r.faults[action] = q[1:]
		return q[0], true
	}
	f, ok := r.always[action]
	return f, ok
}

// throttled takes the tokens of a call from the account's bucket and from that
// of the action.
func (r *Route53) throttled(action string) bool {
	if r.limits.CallRate <= 0 {
		return false
	}
	now := time.Now()
	for _, name := range []string{"", action} {
		if !r.bucket(name).take(1, r.limits.CallRate, r.limits.CallBurst, now) {
			return true
		}
	}
	return false
}

func (r *Route53) bucket(name string) *bucket {
	b := r.buckets[name]
	if b == nil {
		b = new(bucket)
		r.buckets[name] = b
	}
	return b
}

// setKey identifies a record set in its zone. Its first part is the name with
// its labels turned around, which is how Route 53 sorts.
type setKey struct{ reversed, rrtype, id string }

func (s RRSet) key() setKey { return setKey{reverse(s.Name), s.Type, s.SetIdentifier} }

func (k setKey) compare(o setKey) int {
	if c := strings.Compare(k.reversed, o.reversed); c != 0 {
		return c
	}
	if c := strings.Compare(k.rrtype, o.rrtype); c != 0 {
		return c
	}
	return strings.Compare(k.id, o.id)
}

func (hz *hostedZone) sorted() []RRSet {
	keys := slices.SortedFunc(maps.Keys(hz.sets), setKey.compare)
	out := make([]RRSet, len(keys))
	for i, k := range keys {
		out[i] = hz.sets[k]
	}
	return out
}
