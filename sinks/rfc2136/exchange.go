package rfc2136

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// fudge is how far the server's clock may be from ours (RFC 8945 §10 recommends
// 300 s), in seconds.
const fudge = 300

// kind says why a server did not accept an update.
type kind string

// The kinds of failure.
const (
	unreachable kind = "unreachable" // no connection
	unanswered  kind = "unanswered"  // a connection, and no answer in time
	unsigned    kind = "unsigned"    // an answer that proves nothing
	ownKey      kind = "key"         // our secret cannot be used
	badTime     kind = "badtime"
	badKey      kind = "badkey"
	badSig      kind = "badsig"
	servFail    kind = "servfail"
	refused     kind = "refused"
	notAuth     kind = "notauth"
	notZone     kind = "notzone"
	denied      kind = "denied" // a claim, by a signed answer
	otherCode   kind = "other"
)

// failure is an update that one server did not accept.
type failure struct {
	server string
	kind   kind
	err    error
	// harmless is set when it is certain that the zone has not changed, and will
	// not because of this message: it was not sent, or the server said so and
	// signed that.
	harmless bool
}

// Error returns the server and what happened.
func (f *failure) Error() string { return f.server + ": " + f.err.Error() }

// hint says what a person can do about it.
func (f *failure) hint() string {
	switch f.kind {
	case unreachable:
		return "check rfc2136.servers, the server itself, and that TCP port 53 is open between here and there"
	case unanswered:
		return "the server is slow, or something between loses its messages; see its log, and rfc2136.timeout"
	case unsigned:
		return "only signed answers are believed: check that what answers is the zone's server, and the key"
	case ownKey:
		return "check rfc2136.secret: it must refer to the key in base64, as tsig-keygen prints it"
	case badTime:
		return "set the clock right, here or on the server: run NTP on both"
	case badKey:
		return "give the server a key of this name and algorithm; Knot also says BADKEY where no acl allows the change"
	case badSig:
		return "the secret is not the server's one for this key: compare rfc2136.secret with the server's config"
	case servFail:
		return "the server's log says more: a full disk, a zone that is not loaded, or a name with more records than BIND's max-records-per-type (100)"
	case refused:
		return "the server's update-policy or acl does not let this key change these names; see packaging/examples"
	case notAuth:
		return "the server is not the primary of the zone: check rfc2136.servers and rfc2136.zone"
	case notZone:
		return "the names are not in the server's zone: set rfc2136.zone to the zone as the server has it"
	}
	return "the server's log says more"
}

// failures is what all servers that were tried said, in their order.
type failures []*failure

// Error returns all of them in one line.
func (fs failures) Error() string {
	texts := make([]string, len(fs))
	for i, f := range fs {
		texts[i] = f.Error()
	}
	return strings.Join(texts, "; ")
}

// denied reports whether the last server denied a claim.
func (fs failures) denied() bool { return len(fs) > 0 && fs[len(fs)-1].kind == denied }

// hint returns the hint of the first server that said something, or else of the
// first.
func (fs failures) hint() string {
	i := slices.IndexFunc(fs, func(f *failure) bool { return f.kind != unreachable })
	return fs[max(0, i)].hint()
}

// client speaks to servers. It keeps no connection: between changes, hosts by the
// thousand have no business with a name server.
type client struct {
	cfg   Config
	clock func() time.Time
}

// exchange has one server apply one update. It returns how far this host's clock
// is ahead of the server's, where the server tells its time, or why the update
// was not accepted.
func (c *client) exchange(ctx context.Context, server string, m *dns.Msg) (skew time.Duration, f *failure) {
	fail := func(k kind, harmless bool, err error) (time.Duration, *failure) {
		return 0, &failure{server, k, err, harmless}
	}
	wire, mac, secret, err := c.sign(m)
	if err != nil {
		return fail(ownKey, true, err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout.Std())
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", server)
	if err != nil {
		return fail(unreachable, true, short(err))
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()

	co := &dns.Conn{Conn: conn}
	reply, err := ask(co, wire)
	if err != nil {
		// What the kernel still has to send must not arrive later.
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		return fail(unanswered, false, fmt.Errorf("no answer: %w", short(err)))
	}
	answer := new(dns.Msg)
	if err := answer.Unpack(reply); err != nil {
		return fail(unsigned, false, fmt.Errorf("read answer: %w", err))
	}
	if !answer.Response || answer.Id != m.Id || answer.Opcode != dns.OpcodeUpdate {
		return fail(unsigned, false, errors.New("the answer is to something else"))
	}
	return c.judge(server, answer, dns.TsigVerify(reply, secret, mac, false))
}

// sign returns the signed message, its signature and the secret.
func (c *client) sign(m *dns.Msg) (wire []byte, mac, secret string, err error) {
	if secret, err = c.cfg.Secret.Value(); err != nil {
		return nil, "", "", err
	}
	if _, err := base64.StdEncoding.DecodeString(secret); err != nil {
		return nil, "", "", errors.New("read secret: it is not base64") // never quote it
	}
	m.Extra = nil
	m.SetTsig(dns.CanonicalName(c.cfg.Key), dns.Fqdn(string(c.cfg.Algorithm)), fudge, c.clock().Unix())
	if wire, mac, err = dns.TsigGenerate(m, secret, "", false); err != nil {
		return nil, "", "", fmt.Errorf("sign: %w", err)
	}
	return wire, mac, secret, nil
}

func ask(co *dns.Conn, wire []byte) ([]byte, error) {
	if _, err := co.Write(wire); err != nil {
		return nil, err
	}
	return co.ReadMsgHeader(nil)
}

// judge says what an answer means. Verified is nil where its signature is good.
func (c *client) judge(server string, answer *dns.Msg, verified error) (time.Duration, *failure) {
	// The time is compared after the signature, which covers our own message's:
	// an answer to it cannot be an old one, whatever its time.
	signed := verified == nil || errors.Is(verified, dns.ErrTime)
	code := dns.RcodeToString[answer.Rcode]
	sig := answer.IsTsig()
	if answer.Rcode == dns.RcodeSuccess && signed {
		return c.clock().Sub(time.Unix(int64(sig.TimeSigned), 0)), nil
	}
	// SERVFAIL may come after the change, from a server that could not write its
	// journal; the others say that there was none. NOTAUTH cannot be verified.
	f := &failure{server: server, harmless: signed && answer.Rcode != dns.RcodeServerFailure}
	f.kind, f.err = otherCode, fmt.Errorf("the server says %s", code)
	switch answer.Rcode {
	case dns.RcodeSuccess:
		f.kind, f.err = unsigned, fmt.Errorf("the answer is not signed as it must be: %w", verified)
	case dns.RcodeServerFailure:
		f.kind = servFail
	case dns.RcodeRefused:
		f.kind, f.err = refused, fmt.Errorf("REFUSED: key %s may not make this change", c.cfg.Key)
	case dns.RcodeNotZone:
		f.kind = notZone
	case dns.RcodeNXRrset, dns.RcodeYXRrset:
		if signed {
			f.kind, f.err = denied, fmt.Errorf("%s: %w", code, errDenied)
		}
	case dns.RcodeNotAuth:
		f.kind, f.err = c.notAuth(sig)
	}
	return 0, f
}

// notAuth tells apart what the code NOTAUTH stands for (RFC 2136 §2.2, RFC 8945
// §5.2).
func (c *client) notAuth(sig *dns.TSIG) (kind, error) {
	if sig == nil {
		return notAuth, errors.New("NOTAUTH: the server is not authoritative for the zone")
	}
	switch sig.Error {
	case dns.RcodeBadTime:
		return badTime, fmt.Errorf("BADTIME: %s", c.describeSkew(sig))
	case dns.RcodeBadKey:
		return badKey, fmt.Errorf("BADKEY: the server does not know the key %s (%s), or has other uses for it", c.cfg.Key, c.cfg.Algorithm)
	case dns.RcodeBadSig, dns.RcodeBadTrunc:
		return badSig, fmt.Errorf("BADSIG: the server has another secret for the key %s", c.cfg.Key)
	}
	return notAuth, errors.New("NOTAUTH: the server is not authoritative for the zone")
}

// describeSkew says how far the clocks are apart: with BADTIME comes the server's
// time, 48 bits of seconds (RFC 8945 §5.2.3).
func (c *client) describeSkew(sig *dns.TSIG) string {
	b, err := hex.DecodeString(sig.OtherData)
	if err != nil || len(b) != 6 {
		return "this host's clock and the server's differ by more than " + (fudge * time.Second).String()
	}
	var seconds int64
	for _, x := range b {
		seconds = seconds<<8 | int64(x)
	}
	// Both in whole seconds, as they were compared.
	return skewText(time.Duration(int64(sig.TimeSigned)-seconds) * time.Second)
}

// skewText says of a clock that is ahead of a server's by d.
func skewText(d time.Duration) string {
	if d < 0 {
		return "this host's clock is " + (-d).Round(time.Second).String() + " behind the server's"
	}
	return "this host's clock is " + d.Round(time.Second).String() + " ahead of the server's"
}

// short leaves out of a network error what the message says anyway.
func short(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return errors.New("timed out")
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the connection was closed")
	}
	return errors.New(strings.TrimPrefix(err.Error(), "connect: "))
}
