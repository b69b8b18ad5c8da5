package usage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/berthd/berth/agent"
)

// snapshotVersion is the first byte of a snapshot. Others are not read: what is
// lost is eight days of statistics, which come again.
const snapshotVersion = 1

// encoder appends to its buffer.
type encoder struct{ b []byte }

func (e *encoder) uint(v uint64)   { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) int(v int64)     { e.b = binary.AppendVarint(e.b, v) }
func (e *encoder) float(v float64) { e.b = binary.LittleEndian.AppendUint64(e.b, math.Float64bits(v)) }

func (e *encoder) float32(v float32) {
	e.b = binary.LittleEndian.AppendUint32(e.b, math.Float32bits(v))
}
func (e *encoder) compact(v compact)  { e.b = binary.LittleEndian.AppendUint16(e.b, uint16(v)) }
func (e *encoder) string(s string)    { e.uint(uint64(len(s))); e.b = append(e.b, s...) }
func (e *encoder) time(t time.Time)   { e.int(unixOr0(t)) }
func (e *encoder) average(a *average) { e.float(a.value); e.float(a.seen) }

// unixOr0 is the time in nanoseconds since 1970, 0 for none.
func unixOr0(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// histogram leaves out empty buckets.
func (e *encoder) histogram(h *histogram) {
	n := 0
	for _, w := range h.weights {
		if w != 0 {
			n++
		}
	}
	e.float(h.ref)
	e.uint(uint64(n))
	for i, w := range h.weights {
		if w != 0 {
			e.uint(uint64(i))
			e.float32(w)
		}
	}
}

// errSnapshot means that a snapshot is not one that this version writes.
var errSnapshot = errors.New("not a snapshot of this version")

// decoder reads from the front of its buffer. After an error it returns zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = errSnapshot
	}
	d.b = nil
}

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.fail()
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// float reads a finite number.
func (d *decoder) float() float64 {
	p := d.take(8)
	if p == nil {
		return 0
	}
	v := math.Float64frombits(binary.LittleEndian.Uint64(p))
	if math.IsNaN(v) || math.IsInf(v, 0) {
		d.fail()
		return 0
	}
	return v
}

func (d *decoder) float32() float32 {
	p := d.take(4)
	if p == nil {
		return 0
	}
	v := math.Float32frombits(binary.LittleEndian.Uint32(p))
	if !(v >= 0) || math.IsInf(float64(v), 0) {
		d.fail()
		return 0
	}
	return v
}

func (d *decoder) compact() compact {
	p := d.take(2)
	if p == nil {
		return 0
	}
	return compact(binary.LittleEndian.Uint16(p))
}

func (d *decoder) string() string { return string(d.take(d.count())) }

// count reads how many there are of something that takes at least a byte each.
func (d *decoder) count() int {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) time() time.Time {
	if n := d.int(); n != 0 {
		return time.Unix(0, n).UTC()
	}
	return time.Time{}
}

func (d *decoder) average(a *average) { a.value, a.seen = d.float(), d.float() }

func (d *decoder) histogram(h *histogram) {
	h.ref = d.float()
	for range d.count() {
		i, w := d.uint(), d.float32()
		if i >= uint64(len(h.weights)) {
			d.fail()
			return
		}
		h.weights[i] = w
		h.total += float64(w)
	}
}

// encode returns the book as a snapshot.
func (b *Book) encode() []byte {
	e := &encoder{b: make([]byte, 0, 4096*len(b.services)+512*len(b.containers)+1024)}
	e.b = append(e.b, snapshotVersion)
	e.string(b.boot)
	e.time(b.clock.at)
	e.uint(uint64(len(b.services)))
	for _, s := range b.services {
		e.service(s)
	}
	e.uint(uint64(len(b.containers)))
	for _, t := range b.containers {
		e.tenant(t)
	}
	return e.b
}

func (e *encoder) key(k serviceKey) {
	e.string(k.service)
	e.string(k.environment)
	e.string(k.instanceType)
}

func (d *decoder) key() serviceKey { return serviceKey{d.string(), d.string(), d.string()} }

func (e *encoder) reservation(r *Reservation) {
	e.float(r.Cores)
	e.string(r.CPUSource)
	e.uint(r.Memory)
	e.string(r.MemorySource)
	e.float(r.CPULimit)
	e.uint(r.MemoryLimit)
}

func (d *decoder) reservation() Reservation {
	return Reservation{d.float(), d.string(), d.uint(), d.string(), d.float(), d.uint()}
}

func (e *encoder) service(s *service) {
	e.key(s.key)
	e.time(s.first)
	e.time(s.last)
	e.histogram(&s.cores)
	e.histogram(&s.memory)
	e.reservation(&s.reservation)
	e.int(s.oom.at)
	e.float(s.oom.floor)
	for _, m := range []*machine{&s.cpu, &s.mem} {
		e.string(m.verdict)
		e.int(m.since)
		e.int(m.low)
		e.int(m.high)
		e.int(m.set)
		e.float(m.to)
	}
	h := s.history
	e.int(h.now)
	l := &h.current
	e.histogram(&l.cores)
	for _, v := range l.fields() {
		e.float(*v)
	}
	e.uint(uint64(h.known))
	for i := range h.past {
		slot := &h.past[i]
		if slot.seconds == 0 {
			continue
		}
		e.uint(uint64(i))
		for _, v := range slot.fields() {
			e.compact(*v)
		}
	}
}

func (d *decoder) service(cfg *AdviceConfig) *service {
	s := newService(d.key(), cfg)
	s.first, s.last = d.time(), d.time()
	d.histogram(&s.cores)
	d.histogram(&s.memory)
	s.reservation = d.reservation()
	s.oom.at, s.oom.floor = d.int(), d.float()
	for _, m := range []*machine{&s.cpu, &s.mem} {
		m.verdict = d.string()
		m.since, m.low, m.high, m.set = d.int(), d.int(), d.int(), d.int()
		m.to = d.float()
	}
	h := s.history
	h.now = d.int()
	d.histogram(&h.current.cores)
	for _, v := range h.current.fields() {
		*v = d.float()
	}
	for range d.count() {
		i := d.uint()
		if i >= hours {
			d.fail()
			break
		}
		slot := &h.past[i]
		if slot.seconds == 0 {
			h.known++
		}
		for _, v := range slot.fields() {
			*v = d.compact()
		}
		if slot.seconds == 0 {
			d.fail()
		}
	}
	return s
}

// fields returns all figures of the current hour but the histogram.
func (l *load) fields() [9]*float64 {
	return [...]*float64{&l.peak, &l.used, &l.reserved, &l.seconds, &l.periods, &l.throttled, &l.limit, &l.memory, &l.kills}
}

// fields returns all figures of an hour.
func (h *hour) fields() [10]*compact {
	return [...]*compact{&h.p90, &h.p95, &h.peak, &h.used, &h.reserved, &h.seconds, &h.throttled, &h.need, &h.memory, &h.kills}
}

func (e *encoder) tenant(t *tenant) {
	e.string(t.run.ID)
	e.int(t.run.StartedAt)
	e.string(t.subject.Name)
	e.key(t.service.key)
	e.reservation(&t.reservation)
	for _, a := range []*average{&t.short, &t.long, &t.throttled, &t.pressure} {
		e.average(a)
	}
	e.float(t.memory)
	e.float(t.memoryPeak)
	e.float(t.kills)
	e.time(t.at)
	e.time(t.base.At)
	e.b = append(e.b, byte(t.base.Parts))
	c := &t.base.Total
	for _, v := range []uint64{
		uint64(c.CPU), c.Periods, c.Throttled, uint64(c.ThrottledTime), uint64(c.Stalled),
		c.OOMKills, c.NetRx, c.NetTx, c.IORead, c.IOWrite,
	} {
		e.uint(v)
	}
}

func (d *decoder) tenant() (*tenant, serviceKey) {
	t := &tenant{run: agent.RunKey{ID: d.string(), StartedAt: d.int()}}
	t.subject.Name = d.string()
	key := d.key()
	t.reservation = d.reservation()
	for _, a := range []*average{&t.short, &t.long, &t.throttled, &t.pressure} {
		d.average(a)
	}
	t.memory, t.memoryPeak, t.kills = d.float(), d.float(), d.float()
	t.at, t.base.At = d.time(), d.time()
	if p := d.take(1); p != nil {
		t.base.Parts = Parts(p[0])
	}
	c := &t.base.Total
	c.CPU = time.Duration(d.uint())
	c.Periods, c.Throttled = d.uint(), d.uint()
	c.ThrottledTime, c.Stalled = time.Duration(d.uint()), time.Duration(d.uint())
	c.OOMKills, c.NetRx, c.NetTx, c.IORead, c.IOWrite = d.uint(), d.uint(), d.uint(), d.uint(), d.uint()
	t.subject.ID = t.run.ID
	t.subject.Service, t.subject.Environment, t.subject.InstanceType = key.service, key.environment, key.instanceType
	return t, key
}

// decode takes over a snapshot. After an error the book is in no good state.
func (b *Book) decode(data []byte) error {
	if len(data) == 0 || data[0] != snapshotVersion {
		return errSnapshot
	}
	d := &decoder{b: data[1:]}
	sameBoot := d.string() == b.boot && b.boot != ""
	b.clock = clock{at: d.time()}
	for range d.count() {
		s := d.service(&b.cfg)
		if d.err != nil || len(b.services) >= mostServices {
			break
		}
		b.services[s.key] = s
	}
	for range d.count() {
		t, key := d.tenant()
		if d.err != nil {
			break
		}
		s := b.services[key]
		if !sameBoot || s == nil || len(b.containers) >= mostContainers {
			continue // of another boot: it does not run any more
		}
		b.restored[t.run] = t.base
		t.service = s
		s.tenants = append(s.tenants, t)
		b.containers[t.run] = t
	}
	if d.err == nil && len(d.b) != 0 {
		d.fail()
	}
	if d.err != nil {
		return fmt.Errorf("read the snapshot: %w", d.err)
	}
	return nil
}
