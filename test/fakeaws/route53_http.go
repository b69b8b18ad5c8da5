package fakeaws

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The paths and the XML namespace are those of the Route 53 API of 2013-04-01.
const (
	r53Base      = "/2013-04-01/"
	r53Namespace = "https://route53.amazonaws.com/doc/2013-04-01/"
)

// reply is a response.
type reply struct {
	status int
	body   string
}

var (
	rateExceeded = failure(http.StatusBadRequest, "Throttling", "Rate exceeded")
	priorRequest = failure(http.StatusBadRequest, "PriorRequestNotComplete",
		"The request was rejected because Route 53 was still processing a prior request.")
)

// failure returns an error as the service writes it.
func failure(status int, code, message string) reply {
	kind := "Sender"
	if status >= 500 {
		kind = "Receiver"
	}
	return reply{status, fmt.Sprintf(`<ErrorResponse xmlns="%s"><Error><Type>%s</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>00000000-0000-0000-0000-000000000000</RequestId></ErrorResponse>`,
		r53Namespace, kind, code, escapeXML(message))}
}

func success(root, content string) reply {
	return reply{http.StatusOK, fmt.Sprintf(`<%s xmlns="%s">%s</%s>`, root, r53Namespace, content, root)}
}

// invalidBatch refuses a batch: all that is wrong in one message, or in the
// older form as a list.
func (r *Route53) invalidBatch(problems []string) reply {
	if !r.listXML {
		return failure(http.StatusBadRequest, "InvalidChangeBatch", "["+strings.Join(problems, ", ")+"]")
	}
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&b, "<Message>%s</Message>", escapeXML(p))
	}
	return reply{http.StatusBadRequest, fmt.Sprintf(`<InvalidChangeBatch xmlns="%s"><Messages>%s</Messages><RequestId>00000000-0000-0000-0000-000000000000</RequestId></InvalidChangeBatch>`,
		r53Namespace, b.String())}
}

func escapeXML(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}

func changeInfo(id, status string, at time.Time) string {
	return fmt.Sprintf("<ChangeInfo><Id>/change/%s</Id><Status>%s</Status><SubmittedAt>%s</SubmittedAt></ChangeInfo>",
		id, status, at.UTC().Format(time.RFC3339))
}

// action returns the name of what a request asks for and the ID in its path.
func action(req *http.Request) (name, id string) {
	path, ok := strings.CutPrefix(req.URL.Path, r53Base)
	if !ok {
		return "", ""
	}
	parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
	switch {
	case len(parts) == 3 && parts[0] == "hostedzone" && parts[2] == "rrset" && req.Method == http.MethodPost:
		return "ChangeResourceRecordSets", parts[1]
	case len(parts) == 3 && parts[0] == "hostedzone" && parts[2] == "rrset" && req.Method == http.MethodGet:
		return "ListResourceRecordSets", parts[1]
	case len(parts) == 2 && parts[0] == "hostedzone" && req.Method == http.MethodGet:
		return "GetHostedZone", parts[1]
	case len(parts) == 2 && parts[0] == "change" && req.Method == http.MethodGet:
		return "GetChange", parts[1]
	case len(parts) == 1 && parts[0] == "hostedzonesbyname" && req.Method == http.MethodGet:
		return "ListHostedZonesByName", ""
	}
	return "", ""
}

// signed reports whether a request has a SigV4 signature for a service. Whether
// it is right nobody here knows.
func signed(req *http.Request, service string) bool {
	auth := req.Header.Get("Authorization")
	return strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=") && strings.Contains(auth, "/"+service+"/aws4_request") &&
		strings.Contains(auth, "SignedHeaders=") && strings.Contains(auth, "x-amz-date") &&
		strings.Contains(auth, "Signature=") && req.Header.Get("X-Amz-Date") != ""
}

func (r *Route53) serve(w http.ResponseWriter, req *http.Request) {
	at := time.Now()
	name, id := action(req)
	r.mu.Lock()
	r.calls[name]++
	a, cut := r.handle(name, id, req, at)
	if name == "ChangeResourceRecordSets" && (cut || a.status != http.StatusOK) {
		r.failed++
	}
	r.mu.Unlock()
	if cut {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(a.status)
	_, _ = w.Write([]byte(xml.Header + a.body))
}

// handle answers a request, or tells to cut its connection.
func (r *Route53) handle(name, id string, req *http.Request, at time.Time) (a reply, cut bool) {
	switch {
	case name == "":
		return failure(http.StatusNotFound, "UnknownOperationException", req.Method+" "+req.URL.Path), false
	case !signed(req, "route53"):
		return failure(http.StatusForbidden, "MissingAuthenticationToken", "Missing Authentication Token"), false
	case r.throttled(name):
		return rateExceeded, false
	}
	f, ok := r.fault(name)
	if !ok {
		return r.perform(name, id, req, at), false
	}
	switch f {
	case Throttled:
		return rateExceeded, false
	case PriorRequest:
		return priorRequest, false
	case Denied:
		return failure(http.StatusForbidden, "AccessDenied", "User is not authorized to perform: route53:"+name), false
	case CutBefore:
		return reply{}, true
	case CutAfter:
		r.perform(name, id, req, at)
		return reply{}, true
	}
	return failure(http.StatusInternalServerError, "InternalError", "We encountered an internal error."), false
}

func (r *Route53) perform(name, id string, req *http.Request, at time.Time) reply {
	switch name {
	case "ChangeResourceRecordSets":
		return r.changeSets(id, req.Body, at)
	case "ListResourceRecordSets":
		return r.listSets(id, req)
	case "GetHostedZone":
		return r.getZone(id)
	case "GetChange":
		return r.getChange(id)
	}
	return r.listZones(req)
}

// zone returns the zone with this ID, or the refusal.
func (r *Route53) zone(id string) (*hostedZone, reply) {
	if hz := r.zones[id]; hz != nil {
		return hz, reply{}
	}
	return nil, failure(http.StatusNotFound, "NoSuchHostedZone", "No hosted zone found with ID: "+id)
}

func (hz *hostedZone) xml() string {
	return fmt.Sprintf("<HostedZone><Id>/hostedzone/%s</Id><Name>%s</Name><CallerReference>ref-%s</CallerReference>"+
		"<Config><PrivateZone>%t</PrivateZone></Config><ResourceRecordSetCount>%d</ResourceRecordSetCount></HostedZone>",
		hz.ID, escapeName(hz.Name), hz.ID, hz.Private, len(hz.sets))
}

func (r *Route53) getZone(id string) reply {
	hz, refused := r.zone(id)
	if hz == nil {
		return refused
	}
	content := hz.xml()
	if hz.Private {
		content += "<VPCs>"
		for _, v := range hz.VPCs {
			content += "<VPC><VPCRegion>eu-central-1</VPCRegion><VPCId>" + v + "</VPCId></VPC>"
		}
		content += "</VPCs>"
	}
	return success("GetHostedZoneResponse", content)
}

func (r *Route53) getChange(id string) reply {
	c := r.changes[id]
	if c == nil {
		return failure(http.StatusNotFound, "NoSuchChange", "Could not find resource with ID: "+id)
	}
	c.polls++
	status := "PENDING"
	if c.polls >= r.syncPolls && time.Since(c.at) >= r.syncAfter {
		status = "INSYNC"
	}
	return success("GetChangeResponse", changeInfo(id, status, c.at))
}

// page returns the size of a page that a request asks for.
func page(req *http.Request, most int) (int, bool) {
	text := req.URL.Query().Get("maxitems")
	if text == "" {
		return most, true
	}
	n, err := strconv.Atoi(text)
	return min(n, most), err == nil && n > 0
}

// listZones is ListHostedZonesByName: all zones from a name on, whether one has
// that name or not.
func (r *Route53) listZones(req *http.Request) reply {
	q := req.URL.Query()
	size, ok := page(req, 100)
	start, err := "", error(nil)
	if q.Get("dnsname") != "" {
		start, err = parseName(q.Get("dnsname"))
	}
	if !ok || err != nil || q.Get("hostedzoneid") != "" && start == "" {
		return failure(http.StatusBadRequest, "InvalidInput", "maxitems, dnsname or hostedzoneid is invalid")
	}
	zones := make([]*hostedZone, 0, len(r.zones))
	order := func(name, id string) setKey { return setKey{reversed: reverse(name), rrtype: id} }
	for _, hz := range r.zones {
		if start == "" || order(hz.Name, hz.ID).compare(order(start, q.Get("hostedzoneid"))) >= 0 {
			zones = append(zones, hz)
		}
	}
	slices.SortFunc(zones, func(a, b *hostedZone) int { return order(a.Name, a.ID).compare(order(b.Name, b.ID)) })
	var b strings.Builder
	b.WriteString("<HostedZones>")
	for _, hz := range zones[:min(size, len(zones))] {
		b.WriteString(hz.xml())
	}
	fmt.Fprintf(&b, "</HostedZones><IsTruncated>%t</IsTruncated><MaxItems>%d</MaxItems>", len(zones) > size, size)
	if len(zones) > size {
		fmt.Fprintf(&b, "<NextDNSName>%s</NextDNSName><NextHostedZoneId>%s</NextHostedZoneId>", escapeName(zones[size].Name), zones[size].ID)
	}
	return success("ListHostedZonesByNameResponse", b.String())
}

// listSets is ListResourceRecordSets: all sets from a place on.
func (r *Route53) listSets(zone string, req *http.Request) reply {
	hz, refused := r.zone(zone)
	if hz == nil {
		return refused
	}
	q := req.URL.Query()
	size, ok := page(req, 300)
	name, rrtype, id := q.Get("name"), q.Get("type"), q.Get("identifier")
	if !ok || rrtype != "" && name == "" || id != "" && rrtype == "" {
		return failure(http.StatusBadRequest, "InvalidInput", "maxitems is invalid, or a type is without name, or an identifier without type")
	}
	var from setKey
	if name != "" {
		parsed, err := parseName(name)
		if err != nil {
			return failure(http.StatusBadRequest, "InvalidInput", err.Error())
		}
		from = setKey{reverse(parsed), rrtype, id}
	}
	sets := hz.sorted()
	i, _ := slices.BinarySearchFunc(sets, from, func(s RRSet, k setKey) int { return s.key().compare(k) })
	sets = sets[i:]
	var b strings.Builder
	b.WriteString("<ResourceRecordSets>")
	for _, s := range sets[:min(size, len(sets))] {
		b.WriteString(s.xml())
	}
	fmt.Fprintf(&b, "</ResourceRecordSets><IsTruncated>%t</IsTruncated><MaxItems>%d</MaxItems>", len(sets) > size, size)
	if len(sets) > size {
		next := sets[size]
		fmt.Fprintf(&b, "<NextRecordName>%s</NextRecordName><NextRecordType>%s</NextRecordType>", escapeName(next.Name), next.Type)
		if next.SetIdentifier != "" {
			fmt.Fprintf(&b, "<NextRecordIdentifier>%s</NextRecordIdentifier>", escapeXML(next.SetIdentifier))
		}
	}
	return success("ListResourceRecordSetsResponse", b.String())
}

func (s RRSet) xml() string {
	var b strings.Builder
	fmt.Fprintf(&b, "<ResourceRecordSet><Name>%s</Name><Type>%s</Type>", escapeName(s.Name), s.Type)
	if s.SetIdentifier != "" {
		fmt.Fprintf(&b, "<SetIdentifier>%s</SetIdentifier>", escapeXML(s.SetIdentifier))
	}
	if s.Weighted {
		fmt.Fprintf(&b, "<Weight>%d</Weight>", s.Weight)
	}
	if s.MultiValue {
		b.WriteString("<MultiValueAnswer>true</MultiValueAnswer>")
	}
	fmt.Fprintf(&b, "<TTL>%d</TTL><ResourceRecords>", s.TTL)
	for _, v := range s.Values {
		fmt.Fprintf(&b, "<ResourceRecord><Value>%s</Value></ResourceRecord>", escapeXML(v))
	}
	b.WriteString("</ResourceRecords></ResourceRecordSet>")
	return b.String()
}
