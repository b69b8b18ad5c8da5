package route53

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/route53"
	"github.com/aws/aws-sdk-go-v2/service/route53/types"
)

// errNotOne means that the config does not mean exactly one hosted zone.
var errNotOne = errors.New("not exactly one hosted zone")

// findZone reports whether it is known which zone to write, and asks if it is
// not. What was found once is remembered, in the journal too.
func (w *worker) findZone(ctx context.Context, records string) bool {
	selector := w.cfg.selector(records)
	if w.ledger.Zone.Selector != selector {
		win := w.window("")
		if now := time.Now(); now.Before(win.until) {
			w.wakeAt(win.until)
			return false
		}
		zone, err := w.resolveZone(ctx, records)
		w.health.Set(condZone, err, zoneHint(err))
		if err != nil {
			win.failed(w.timing, time.Now())
			w.wakeAt(win.until)
			return false
		}
		win.succeeded(w.timing, time.Now())
		zone.Selector = selector
		w.log.Info("found the hosted zone", "zone", zone.ID, "name", zone.Name)
		_ = w.note(record{Op: opZone, Zone: zone})
	}
	var err error
	if !within(records, w.ledger.Zone.Name) {
		err = fmt.Errorf("%w: the records' domain %s is not in the hosted zone %s (%s)", errNotOne, records, w.ledger.Zone.Name, w.ledger.Zone.ID)
	}
	w.health.Set(condZone, err, zoneHint(err))
	return err == nil
}

func zoneHint(err error) string {
	if errors.Is(err, errNotOne) {
		return "nothing is written to Route 53: set zone_id, or zone_name with private and vpc_id, so that one zone is meant"
	}
	return writeHint(err)
}

// resolveZone asks for the zone that the config means.
func (w *worker) resolveZone(ctx context.Context, records string) (hostedZone, error) {
	if w.cfg.ZoneID != "" {
		return w.zoneByID(ctx, strings.TrimPrefix(w.cfg.ZoneID, "/hostedzone/"), records)
	}
	name := cmpName(w.cfg.ZoneName)
	if name == "" {
		name = records
	}
	zones, err := w.zonesByName(ctx, name)
	if err != nil {
		return hostedZone{}, fmt.Errorf("find hosted zone %s: %w", name, err)
	}
	kind := "public"
	if w.cfg.Private {
		kind = "private"
	}
	if len(zones) != 1 {
		return hostedZone{}, fmt.Errorf("%w: %d %s zones are called %s %s", errNotOne, len(zones), kind, name, zones)
	}
	return hostedZone{ID: zones[0], Name: name}, nil
}

// zoneByID asks for a zone's name. A host that may not is taken to know what it
// does: Route 53 refuses names that do not belong to the zone.
func (w *worker) zoneByID(ctx context.Context, id, records string) (hostedZone, error) {
	out, err := w.getZone(ctx, id)
	switch {
	case err == nil:
		return hostedZone{ID: id, Name: cmpName(aws.ToString(out.HostedZone.Name))}, nil
	case classify(err) == denied:
		return hostedZone{ID: id, Name: records}, nil
	case classify(err) == noZone:
		return hostedZone{}, fmt.Errorf("%w: %w", errNotOne, err)
	}
	return hostedZone{}, fmt.Errorf("get hosted zone %s: %w", id, err)
}

func (w *worker) getZone(ctx context.Context, id string) (*route53.GetHostedZoneOutput, error) {
	if err := w.acquire(ctx, 0); err != nil {
		return nil, err
	}
	cctx, cancel := context.WithTimeout(ctx, w.timing.call)
	defer cancel()
	out, err := w.zones.GetHostedZone(cctx, &route53.GetHostedZoneInput{Id: aws.String(id)})
	w.meters.called("GetHostedZone", err)
	return out, err
}

// zonesByName returns the IDs of the zones that have exactly this name and are
// of the configured kind and VPC.
func (w *worker) zonesByName(ctx context.Context, name string) ([]string, error) {
	var ids []string
	in := &route53.ListHostedZonesByNameInput{DNSName: aws.String(name), MaxItems: aws.Int32(100)}
	for {
		if err := w.acquire(ctx, 0); err != nil {
			return nil, err
		}
		cctx, cancel := context.WithTimeout(ctx, w.timing.call)
		out, err := w.zones.ListHostedZonesByName(cctx, in)
		cancel()
		w.meters.called("ListHostedZonesByName", err)
		if err != nil {
			return nil, err
		}
		past := false
		for _, z := range out.HostedZones {
			if past = cmpName(aws.ToString(z.Name)) != name; past {
				break // the list goes on with other names
			}
			ok, err := w.means(ctx, z)
			if err != nil {
				return nil, err
			}
			if ok {
				ids = append(ids, strings.TrimPrefix(aws.ToString(z.Id), "/hostedzone/"))
			}
		}
		if past || !out.IsTruncated || out.NextDNSName == nil || cmpName(*out.NextDNSName) != name {
			return ids, nil
		}
		in.DNSName, in.HostedZoneId = out.NextDNSName, out.NextHostedZoneId
	}
}

// means reports whether the config means a zone that has the right name.
func (w *worker) means(ctx context.Context, z types.HostedZone) (bool, error) {
	if private := z.Config != nil && z.Config.PrivateZone; private != w.cfg.Private {
		return false, nil
	}
	if w.cfg.VPCID == "" {
		return true, nil
	}
	out, err := w.getZone(ctx, aws.ToString(z.Id))
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(out.VPCs, func(v types.VPC) bool { return aws.ToString(v.VPCId) == w.cfg.VPCID }), nil
}

// forgetZone forgets a zone that does not exist any more, and what was in it.
func (w *worker) forgetZone(id string) {
	forget := record{Op: opForget}
	for k := range w.ledger.Sets {
		if k.Zone == id {
			forget.Sets = append(forget.Sets, setRecord{Key: k})
		}
	}
	_ = w.note(forget)
	if w.ledger.Zone.ID == id {
		_ = w.note(record{Op: opZone})
	}
}
