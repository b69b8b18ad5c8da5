package statsd

import (
	"strings"
	"testing"

	"github.com/berthd/berth/agent"
)

// BenchmarkDatagram rewrites datagrams of one line of 80 bytes with some 190 bytes
// of tags.
func BenchmarkDatagram(b *testing.B) {
	c := running(1, "checkout-01", "127.0.1.1",
		serviceLabel, "checkout-01", ddLabels+"env", "production", ddLabels+"version", "1.42.0", agent.LabelsCompose+"project", "shop")
	c.Image = "registry.example.com/shop/checkout:1.42.0"
	cfg := DefaultConfig()
	cfg.ContainerTags = append(cfg.ContainerTags, "image_tag")
	cfg.Tags = []string{"region:eu-west-1", "account:shop-production"}
	o := newOrigin(c.ID, c.Name, cfg.tagsOf(c), new(account))
	for name, line := range map[string]string{
		"tags":   "checkout.request.duration:1234567|ms|@0.5|#route:/api/cart,method:post,status:2xx",
		"notags": "checkout.request.duration.of.a.very.long.name.with.eighty.bytes.in.it:1234567|ms",
	} {
		b.Run(name, func(b *testing.B) {
			r := &rewriter{mode: ModeTags, out: newPacker(&discard{memory{payload: 8192}})}
			data := []byte(strings.Clone(line))
			b.ReportAllocs()
			for b.Loop() {
				r.datagram(data, false, o, 0)
			}
		})
	}
}
