package fakeaws

import (
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// changeRequest is the body of ChangeResourceRecordSets.
type changeRequest struct {
	XMLName xml.Name `xml:"https://route53.amazonaws.com/doc/2013-04-01/ ChangeResourceRecordSetsRequest"`
	Changes []struct {
		Action string
		Set    xmlSet `xml:"ResourceRecordSet"`
	} `xml:"ChangeBatch>Changes>Change"`
}

// xmlSet is a ResourceRecordSet. Elements that berth has no use for are refused
// instead of ignored.
type xmlSet struct {
	Name             string
	Type             string
	SetIdentifier    string      `xml:",omitempty"`
	Weight           *int64      `xml:",omitempty"`
	MultiValueAnswer *bool       `xml:",omitempty"`
	TTL              *int64      `xml:",omitempty"`
	Values           []xmlValue  `xml:"ResourceRecords>ResourceRecord"`
	Unknown          []anElement `xml:",any"`
}

type xmlValue struct{ Value string }

type anElement struct{ XMLName xml.Name }

// rrset returns what the element says, or why it says nothing that Route 53
// would take, whatever the zone holds.
func (x xmlSet) rrset(l Limits) (RRSet, error) {
	if len(x.Unknown) > 0 {
		return RRSet{}, refusef("%s is not supported here", x.Unknown[0].XMLName.Local)
	}
	name, err := parseName(x.Name)
	if err != nil {
		return RRSet{}, err
	}
	if !slices.Contains([]string{"A", "AAAA", "SRV", "TXT", "CNAME", "NS", "PTR"}, x.Type) {
		return RRSet{}, refusef("invalid type '%s'", x.Type)
	}
	s := RRSet{Name: name, Type: x.Type, SetIdentifier: x.SetIdentifier}
	if err := x.policy(&s); err != nil {
		return RRSet{}, err
	}
	if x.TTL == nil || *x.TTL < 0 || *x.TTL > 1<<31-1 {
		return RRSet{}, refusef("missing or invalid field 'TTL' in %s", s.title())
	}
	s.TTL = *x.TTL
	if len(x.Values) == 0 {
		return RRSet{}, refusef("no resource records in %s", s.title())
	}
	if len(x.Values) > l.Values || x.Type == "CNAME" && len(x.Values) > 1 {
		return RRSet{}, refusef("Cannot have more than %d records in a RRSet", l.Values)
	}
	for _, v := range x.Values {
		if err := parseValue(x.Type, v.Value); err != nil {
			return RRSet{}, refusef("Invalid Resource Record: '%v'", err)
		}
		if slices.Contains(s.Values, v.Value) {
			return RRSet{}, refusef("Duplicate Resource Record: '%s'", v.Value)
		}
		s.Values = append(s.Values, v.Value)
	}
	return s, nil
}

// policy checks the fields of the routing policy.
func (x xmlSet) policy(s *RRSet) error {
	s.MultiValue = x.MultiValueAnswer != nil && *x.MultiValueAnswer
	s.Weighted = x.Weight != nil
	switch {
	case s.MultiValue && s.Weighted:
		return refusef("%s has two routing policies", s.title())
	case (s.MultiValue || s.Weighted) != (x.SetIdentifier != ""):
		return refusef("%s needs a SetIdentifier if and only if it has a routing policy", s.title())
	case utf8.RuneCountInString(x.SetIdentifier) > 128:
		return refusef("SetIdentifier of %s is longer than 128 characters", s.title())
	case s.MultiValue && (x.Type == "NS" || x.Type == "CNAME"):
		return refusef("%s cannot be a multivalue answer", s.title())
	}
	if s.Weighted {
		if s.Weight = *x.Weight; s.Weight < 0 || s.Weight > 255 {
			return refusef("weight of %s is not from 0 to 255", s.title())
		}
	}
	return nil
}

// title names a set as error messages do.
func (s RRSet) title() string {
	if s.SetIdentifier == "" {
		return fmt.Sprintf("[name='%s', type='%s']", s.Name, s.Type)
	}
	return fmt.Sprintf("[name='%s', type='%s', set-identifier='%s']", s.Name, s.Type, s.SetIdentifier)
}

func (s RRSet) equal(o RRSet) bool {
	a, b := slices.Sorted(slices.Values(s.Values)), slices.Sorted(slices.Values(o.Values))
	return slices.Equal(a, b) && s.TTL == o.TTL && s.Weighted == o.Weighted && s.Weight == o.Weight && s.MultiValue == o.MultiValue
}

func (r *Route53) changeSets(zone string, body io.Reader, at time.Time) reply {
	hz, refused := r.zone(zone)
	if hz == nil {
		return refused
	}
	var req changeRequest
	if err := xml.NewDecoder(body).Decode(&req); err != nil || len(req.Changes) == 0 {
		return failure(http.StatusBadRequest, "InvalidInput", fmt.Sprintf("the body is no change batch: %v", err))
	}
	if r.observe != nil {
		a := Arrival{At: at}
		for _, c := range req.Changes {
			a.Changes = append(a.Changes, c.Action+" "+c.Set.Name+" "+c.Set.Type)
		}
		r.observe(a)
	}
	for _, c := range req.Changes {
		if name, err := parseName(c.Set.Name); err == nil && slices.Contains(r.denied, name) {
			return failure(http.StatusForbidden, "AccessDenied", "User is not authorized to perform: route53:ChangeResourceRecordSets")
		}
	}
	now := time.Now()
	if now.Before(hz.busyUntil) {
		return priorRequest
	}
	if r.limits.ChangeRate > 0 &&
		!r.bucket("changes").take(float64(len(req.Changes)), r.limits.ChangeRate, r.limits.ChangeBurst, now) {
		return rateExceeded
	}
	if problems := r.apply(hz, req); len(problems) > 0 {
		return r.invalidBatch(problems)
	}
	hz.busyUntil = now.Add(r.busy)
	r.sizes = append(r.sizes, len(req.Changes))
	r.serial++
	id := fmt.Sprintf("C%013d", r.serial)
	r.changes[id] = &change{at: now}
	return success("ChangeResourceRecordSetsResponse", changeInfo(id, "PENDING", now))
}

// apply applies all changes of a request to a zone, or none.
func (r *Route53) apply(hz *hostedZone, req changeRequest) []string {
	if p := tooLarge(req); p != "" {
		return []string{p}
	}
	b := batch{zone: hz, limits: r.limits, sets: maps.Clone(hz.sets)}
	var touched []string
	for _, c := range req.Changes {
		s, err := c.Set.rrset(r.limits)
		if err == nil {
			err = b.apply(c.Action, s)
		}
		if err != nil {
			b.problems = append(b.problems, err.Error())
		}
		touched = append(touched, s.SetIdentifier)
	}
	if len(b.problems) > 0 {
		return b.problems
	}
	hz.sets = b.sets
	for _, id := range touched {
		hz.changed[id]++
	}
	return nil
}

// tooLarge returns which limit of a request is exceeded, or "".
func tooLarge(req changeRequest) string {
	elements, characters := 0, 0
	for _, c := range req.Changes {
		times := 1
		if c.Action == "UPSERT" {
			times = 2
		}
		for _, v := range c.Set.Values {
			elements += times
			characters += times * utf8.RuneCountInString(v.Value)
		}
	}
	switch {
	case elements > maxElements:
		return fmt.Sprintf("Number of records limit of %d exceeded.", maxElements)
	case characters > maxCharacters:
		return fmt.Sprintf("Number of characters limit of %d exceeded.", maxCharacters)
	}
	return ""
}

// batch is a zone in which some changes of a request have been applied.
type batch struct {
	zone     *hostedZone
	limits   Limits
	sets     map[setKey]RRSet
	problems []string
}

func (b *batch) apply(action string, s RRSet) error {
	if s.Name != b.zone.Name && !strings.HasSuffix(s.Name, "."+b.zone.Name) {
		return refusef("RRSet with DNS name %s is not permitted in zone %s", s.Name, b.zone.Name)
	}
	old, exists := b.sets[s.key()]
	switch action {
	case "DELETE":
		if !exists {
			return refusef("Tried to delete resource record set %s but it was not found", s.title())
		}
		if !old.equal(s) {
			return refusef("Tried to delete resource record set %s but the values provided do not match the current values", s.title())
		}
		delete(b.sets, s.key())
		return nil
	case "CREATE":
		if exists {
			return refusef("Tried to create resource record set %s but it already exists", s.title())
		}
	case "UPSERT":
	default:
		return refusef("Invalid action '%s'", action)
	}
	if err := b.fits(s); err != nil {
		return err
	}
	b.sets[s.key()] = s
	if len(b.sets) > b.limits.ZoneSets {
		return refusef("Exceeded limit of %d RRSets in zone %s", b.limits.ZoneSets, b.zone.Name)
	}
	return nil
}

// fits returns why a set cannot be beside the others of its name, or nil.
func (b *batch) fits(s RRSet) error {
	who := fmt.Sprintf("RRSet with DNS name %s, type %s", s.Name, s.Type)
	if s.SetIdentifier != "" {
		who += ", SetIdentifier " + s.SetIdentifier
	}
	count := 0
	for _, o := range b.sets {
		if o.Name != s.Name || o.key() == s.key() {
			continue
		}
		if (o.Type == "CNAME") != (s.Type == "CNAME") {
			return refusef("RRSet of type %s with DNS name %s is not permitted as it conflicts with other records with the same DNS name in zone %s", s.Type, s.Name, b.zone.Name)
		}
		if o.Type != s.Type {
			continue
		}
		count++
		switch {
		case s.SetIdentifier == "" || o.SetIdentifier == "" && !s.MultiValue && !s.Weighted:
			return refusef("%s cannot be created as other RRSets exist with the same name and type", who)
		case s.MultiValue && !o.MultiValue:
			return refusef("%s cannot be created because a non multivalue answer rrset exists with the same name and type", who)
		case s.Weighted && !o.Weighted:
			return refusef("%s cannot be created as a non-weighted set exists with the same name and type", who)
		case s.Weighted && o.TTL != s.TTL:
			return refusef("%s cannot be created as weighted sets must contain the same TTL", who)
		}
	}
	if s.SetIdentifier != "" && count+1 > b.limits.Sets {
		kind := "multivalue answer"
		if s.Weighted {
			kind = "weighted"
		}
		return refusef("Exceeded limit on number of %s RRSets for %s, type %s in this zone", kind, s.Name, s.Type)
	}
	return nil
}
