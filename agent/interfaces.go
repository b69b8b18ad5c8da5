package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"syscall"
	"time"
)

// ErrNotFound is what Engine.Inspect returns, wrapped or not, for a container
// that the engine says does not exist. It is the only proof of absence that
// the loop accepts: a list that lacks a container is merely a reason to ask.
var ErrNotFound = errors.New("no such container")

// Event is a hint from the engine that something changed. The loop never
// builds state from events alone: the engine keeps 256 of them, drops them
// silently for a slow reader, and forgets them all when it restarts.
type Event struct {
	Time   time.Time // the engine's clock, nanoseconds
	Type   string    // "container" or "network"
	Action string    // "start", "die", "health_status: healthy", "connect", …
	ID     string    // of the container, or of the network
	// Container is the container's ID where the event is a network's "connect"
	// or "disconnect".
	Container string
	Signal    int // of a "kill", otherwise 0
	ExitCode  int // of a "die", otherwise 0
}

// Row is what a list says of one container. It lacks much of what an inspect
// says (when it started, its process, its health in a word), so that the loop
// only compares it with what it knows, and inspects where they contradict.
type Row struct {
	ID        string
	Name      string
	State     State
	Health    HealthStatus // HealthUnknown where the row does not say
	Endpoints []Endpoint   // sorted by Network; addresses as far as known
	Ports     []Port       // sorted, published ones only
	// AgeMin and AgeMax bound how long ago the present run started, or the last
	// one ended if there is none; both are zero when the row does not say.
	AgeMin, AgeMax time.Duration
}

// HealthUnknown is a Row's health when the engine's row does not tell.
const HealthUnknown HealthStatus = "unknown"

// Listing is one complete answer: every container in every state.
type Listing struct {
	Rows []Row
}

// EngineInfo identifies an engine.
type EngineInfo struct {
	ID      string
	Version string // release, such as "20.10.24"
	API     string // the API version in use, such as "1.41"
	Root    string // its data root
}

// Engine is a container engine, as the loop sees it. Implementations are safe
// for concurrent use, and every method returns soon after its context ends.
type Engine interface {
	// Events opens a new stream of events, those since the given moment first,
	// as far as the engine still has them. The loop calls it at the start and
	// whenever the last stream ended; a call also makes the engine's other
	// methods use new connections, so that a replaced socket is followed. It
	// sends to the first channel until the stream ends, then one error to the
	// second. It never closes either.
	Events(ctx context.Context, since time.Time) (<-chan Event, <-chan error)
	// Identify says which engine answers. Once for each stream.
	Identify(ctx context.Context) (EngineInfo, error)
	// List returns all containers. At the start, after each reconnect, and
	// every resync interval. An engine that is still starting must be an error.
	List(ctx context.Context) (Listing, error)
	// Networks returns all networks, as often as List and when networks come
	// and go.
	Networks(ctx context.Context) ([]Network, error)
	// Inspect returns one container, or an error that wraps ErrNotFound. At
	// most Config.Workers at once.
	Inspect(ctx context.Context, id string) (*Container, error)
}

// Feed gives one consumer the latest snapshot.
type Feed interface {
	// Snapshot returns the newest snapshot. It is never nil; before the first
	// publication it is an empty, incomplete one. Safe for concurrent use.
	Snapshot() *Snapshot
	// Changed is sent to after each publication. Its capacity is one, and
	// publications coalesce: receive, then call Snapshot.
	Changed() <-chan struct{}
}

// Collector turns snapshots into something useful.
type Collector interface {
	// Name is the component's name in logs, health conditions and paths.
	Name() string
	// Run works until ctx ends; it is called once, by the supervisor, and
	// returns after it has cleaned up its goroutines. That ctx ends never means
	// that the host goes away: Run removes nothing from the outside world.
	Run(ctx context.Context, f Feed) error
}

// Desired is one consumer's view of the records that this host wants.
type Desired interface {
	// Records returns the newest set and its sequence number, which grows with
	// each change; 0 means that no set has been computed yet. Safe for
	// concurrent use.
	Records() (RecordSet, uint64)
	// Changed is sent to after each change; capacity one, coalescing.
	Changed() <-chan struct{}
}

// RecordSink makes the outside world hold the records that this host wants,
// and no others of this host. It owns diff, coalescing, retry and journal.
type RecordSink interface {
	Name() string
	// Run reconciles until ctx ends; it is called once, and never deregisters
	// because ctx ends.
	Run(ctx context.Context, want Desired) error
	// Applied returns the sequence number of the newest set that the outside
	// world is known to hold. Safe for concurrent use.
	Applied() uint64
}

// MetricSink takes samples. Write is called with each batch, from one
// goroutine, and must return by the time that ctx ends.
type MetricSink interface {
	Name() string
	Write(ctx context.Context, s []Sample) error
}

// Packet is a datagram's worth of whole StatsD lines on its way out.
type Packet struct {
	Data  []byte // the lines, each ended by a newline; borrowed until Send returns
	Lines int    // how many they are
	// PID is the process that the packet is sent in the name of, where the
	// transport can say so (SCM_CREDENTIALS of a Unix socket); 0 for berth itself.
	PID int
}

// LineSink takes StatsD lines in packets.
type LineSink interface {
	Name() string
	// Open returns a port of its own for one receiving thread. An upstream that
	// is not there is no error: the port tries for ever.
	Open() (LinePort, error)
}

// LinePort is one sender's way out. Its methods are called from one goroutine,
// but Stats, which is safe for concurrent use.
type LinePort interface {
	// MaxPayload is the most bytes that a Packet's Data may have.
	MaxPayload() int
	// Send takes packets, in order. It never blocks and never allocates; what
	// cannot be sent now waits in a bounded buffer or is lost, and what is lost
	// is counted. It returns after which time it wants to be called again at the
	// latest, with no packets if there are none, because some wait; 0 if none do.
	Send([]Packet) time.Duration
	// Close sends what still waits until ctx ends, and counts the rest as lost.
	Close(context.Context) error
	// Stats says what became of all packets since Open.
	Stats() LineStats
}

// LineStats is an account of lines: Lines + Dropped + Failed + Waiting are those
// of all packets that Send was given.
type LineStats struct {
	Lines, Packets, Bytes uint64 // given to the kernel
	Dropped               uint64 // lines that the buffer had no room for, or that waited until Close
	Failed                uint64 // lines that the kernel or the upstream refused
	Waiting               uint64 // lines in the buffer
	Connects              uint64 // times that the upstream was connected to
}

// FileID names one state of one file, as stat(2) has it: a file that was
// written to since has another one.
type FileID struct {
	Dev, Ino uint64
	Size     int64 // bytes
	MtimeNs  int64 // nanoseconds since 1970
}

// Reason is one line of an explanation: what was decided about a container, by
// which rule, and what would change it.
type Reason struct {
	Subject string `json:"subject"`       // what the line is about: a port, a name
	Verdict string `json:"verdict"`       // "registered", "refused", "ignored", …
	Rule    string `json:"rule"`          // why, in a sentence
	Fix     string `json:"fix,omitempty"` // what to change to get another verdict
}

// Explainer is implemented by components that can say why they treat a
// container as they do. Safe for concurrent use.
type Explainer interface {
	Explain(id string) []Reason
}

// Metered is implemented by components with figures of their own. Metrics calls
// yield for each, until it returns false. Safe for concurrent use.
type Metered interface {
	Metrics(yield func(Sample) bool)
}

// Env is what every component is made with, besides its own Config.
type Env struct {
	Log      *slog.Logger
	Health   *Health
	Node     NodeSource
	StateDir string // for durable state; exists, 0700

	// Sockets hands out the component's listening sockets, which outlive it. It
	// may be nil: then the component opens and closes its own.
	Sockets Sockets
}

// SocketControl sets options on a socket before it is bound, as
// net.ListenConfig has it.
type SocketControl = func(network, address string, c syscall.RawConn) error

// Sockets opens listening sockets that stay open when the component that asked
// for them is run anew, so that what arrives meanwhile waits and is not refused.
// Asking again returns another duplicate of the same socket; closing a duplicate
// leaves the socket open. All methods are safe for concurrent use.
type Sockets interface {
	// ListenPacket opens a datagram socket; network and address are as in
	// net.ListenPacket. control may be nil.
	ListenPacket(ctx context.Context, network, address string, control SocketControl) (net.PacketConn, error)
	// Listen opens a stream socket.
	Listen(ctx context.Context, network, address string, control SocketControl) (net.Listener, error)
	// Retain closes for good those of the component's sockets that keep does not
	// want.
	Retain(keep func(network, address string) bool)
}

// NodeSource says who this host is.
type NodeSource interface {
	// Node returns what is known now. Safe for concurrent use.
	Node() Node
	// Changed returns a channel that is closed when Node's answer next changes;
	// get it before calling Node.
	Changed() <-chan struct{}
	// StateHost returns the identity that durable state belongs to, which is
	// what the platform calls this host, whatever the config calls it. It is
	// empty until that is certain. State of a host that is positively another
	// one is to be discarded.
	StateHost() string
}
