package client

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// rivalled are natives that hold the record of a rival, or do as if they did not.
type rivalled struct {
	self    ports.PeerID
	mu      sync.Mutex
	rival   *prooftest.Word // nil after it has ended
	seq     int64           // of the rival's record
	step    uint32          // of its last tick
	records []int64         // of the indexer, that were taken
	proofs  ports.Verifier
	asked   int
}

func (n *rivalled) native(answer func() (ports.Answer, error)) ports.Native {
	return porttest.Native{
		OnRegister: func(_ context.Context, _ ports.PeerID, r ports.Registration) (ports.Lease, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			switch {
			case r.Proof.Tick.Seq == asks && n.rival == nil:
				return ports.Lease{NeedRecord: true, Now: time.Now(), Seq: n.seq}, nil
			case r.Proof.Tick.Seq == asks:
				return ports.Lease{NeedRecord: true, Now: time.Now()}, nil
			case n.rival != nil:
				return ports.Lease{}, ports.Refuse(ports.CodeSuperseded, "another one")
			case r.Proof.Record != nil:
				n.records = append(n.records, r.Proof.Tick.Seq)
			}
			return domain.DefaultTTLPolicy().Grant(time.Now()), nil
		},
		OnLookUp: func(context.Context, ports.PeerID, ports.PeerID) (ports.Answer, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.asked++
			return answer()
		},
		OnLeave: func(context.Context, ports.PeerID, []byte) error { return nil },
	}
}

// shows answers as the rival's last tick proves it.
func (n *rivalled) shows() (ports.Answer, error) {
	if n.rival == nil {
		return ports.Answer{}, ports.ErrNotFound
	}
	r := n.rival.Registration(n.step)
	return ports.Answer{Listed: ports.Listed{Entry: ports.Entry{PeerID: n.self, Addr: r.Addr, Proof: r.Proof}, State: ports.StateLive}}, nil
}

func TestWhenASupersededProcessComesBack(t *testing.T) {
	const lives = 5 * time.Minute
	for _, c := range []struct {
		name   string
		others func(n *rivalled) []ports.Native
		// When it comes back after its rival has ended: not before from, and by to.
		from, to time.Duration
	}{
		{"every native shows the rival", func(n *rivalled) []ports.Native { return nil }, 0, 3 * time.Second},
		{"a native shows nobody while the rival lives", func(n *rivalled) []ports.Native {
			return []ports.Native{n.native(func() (ports.Answer, error) { return ports.Answer{}, ports.ErrNotFound })}
		}, 0, 3 * time.Second},
		{"a native shows the rival's last tick for ever", func(n *rivalled) []ports.Native {
			word := n.rival
			return []ports.Native{n.native(func() (ports.Answer, error) {
				r := word.Registration(n.step)
				return ports.Answer{Listed: ports.Listed{Entry: ports.Entry{PeerID: n.self, Addr: r.Addr, Proof: r.Proof}}}, nil
			})}
		}, 0, 70 * time.Second},
		{"a native does not answer", func(n *rivalled) []ports.Native {
			return []ports.Native{n.native(func() (ports.Answer, error) { return ports.Answer{}, errDown })}
		}, 0, 4 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			first := prooftest.NewSigner(t)
			second := first.Twin(t)
			porttest.FakeTime(t, func(t *testing.T) {
				n := &rivalled{self: first.PeerID, proofs: proof.NewVerifier()}
				events := &porttest.Recorder{}
				word := second.Says(t, time.Now().Add(2*time.Second), 100, "there")
				n.rival, n.seq = &word, time.Now().Add(2*time.Second).UnixMilli()
				natives := map[ports.PeerID]ports.Native{"n": n.native(n.shows)}
				for i, other := range c.others(n) {
					natives[ports.PeerID(rune('o'+i))] = other
				}
				x, err := NewIndexer(domain.Rules{Self: first.PeerID, Policy: domain.DefaultTTLPolicy(), Proofs: n.proofs}, first, PinNatives(natives),
					func() ports.Registration { return ports.Registration{PeerID: first.PeerID, Addr: "here"} }, events)
				if err != nil {
					t.Fatal(err)
				}
				stop := running(t, x)
				for range int(lives / time.Second) { // the rival beats
					time.Sleep(time.Second)
					n.mu.Lock()
					n.step = uint32(max(0, time.Since(word.Claim.Issued())/word.Claim.Interval))
					n.mu.Unlock()
				}
				if !x.Superseded() || events.Count(ports.EventRivalGone) != 0 {
					t.Fatalf("superseded %v, back %d times while the rival lives", x.Superseded(), events.Count(ports.EventRivalGone))
				}
				if perSecond := float64(n.asked) / lives.Seconds(); perSecond > 2*float64(len(natives)) {
					t.Errorf("it asks %v times a second", perSecond)
				}
				n.mu.Lock()
				n.rival = nil
				n.mu.Unlock()
				ended := time.Now()
				for x.Superseded() && time.Since(ended) < 2*c.to {
					time.Sleep(100 * time.Millisecond)
				}
				if took := time.Since(ended); took < c.from || took > c.to {
					t.Errorf("back after %v, want %v to %v", took, c.from, c.to)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				n.mu.Lock()
				for _, seq := range n.records {
					if seq <= n.seq {
						t.Errorf("its record is of %d, and the rival's of %d", seq, n.seq)
					}
				}
				if len(n.records) == 0 {
					t.Error("it signed no record")
				}
				n.mu.Unlock()
				stop()
			})
		})
	}
}

// A native that has just started may have missed the rival. It counts once none has shown the rival
// for a TTL: before, at and after that.
func TestANativeThatMayMissTheRivalCountsAfterATTL(t *testing.T) {
	ttl := domain.DefaultTTLPolicy().TTL
	porttest.FakeTime(t, func(t *testing.T) {
		native := porttest.Native{OnLookUp: func(context.Context, ports.PeerID, ports.PeerID) (ports.Answer, error) {
			return ports.Answer{Condition: ports.ConditionWarming}, ports.ErrNotFound
		}}
		x, err := NewIndexer(domain.Rules{Self: "me", Policy: domain.DefaultTTLPolicy()}, nil, PinNatives(map[ports.PeerID]ports.Native{"n": native}),
			func() ports.Registration { return ports.Registration{PeerID: "me", Addr: "here"} }, &porttest.Recorder{})
		if err != nil {
			t.Fatal(err)
		}
		all, lived := x.rivalsNatives(t.Context()), x.clock.Instant()
		for _, c := range []struct {
			at  time.Duration
			may bool
		}{{0, true}, {ttl - 1, true}, {ttl, false}, {ttl + 1, false}} {
			time.Sleep(c.at - x.clock.Instant().Sub(lived))
			if may := x.mayLive(&lived, x.askAllForRival(t.Context(), all)...); may != c.may {
				t.Errorf("after %v a rival may live: %v", c.at, may)
			}
		}
	})
}

// A superseded process may lose its own network for a while, or all natives may restart. It is not
// superseded for ever by that.
func TestASupersededProcessThatHeardNoNativeAsksAgain(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork()
		all := net.natives(3, grants)
		net.connect(all...)
		net.find(all...)
		net.says(func(ports.PeerID, ports.PeerID) (ports.Answer, error) { // the rival lives
			return ports.Answer{Listed: ports.Listed{Entry: ports.Entry{PeerID: "me", Addr: "there"}}}, nil
		})
		x, err := NewIndexer(domain.Rules{Self: "me", Policy: domain.DefaultTTLPolicy()}, nil, FindNatives("me", nil, net, net),
			func() ports.Registration { return ports.Registration{PeerID: "me", Addr: "here"} }, &porttest.Recorder{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		back := make(chan bool, 1)
		go func() { back <- x.outlive(ctx) }()
		time.Sleep(time.Minute)
		net.set(down, all...)
		time.Sleep(10 * time.Minute)
		net.says(func(ports.PeerID, ports.PeerID) (ports.Answer, error) { return ports.Answer{}, ports.ErrNotFound })
		select {
		case <-back:
			t.Fatal("it comes back though no native says that the rival is gone")
		default:
		}
		net.set(grants, all...)
		select {
		case <-back:
		case <-time.After(retryNative.Max + 3*time.Second):
			t.Error("natives answer again and show no rival, and it is superseded still")
		}
	})
}

// Strangers who say that the rival is gone keep nobody from asking the natives that the operator named.
func TestBootstrapNativesAreAskedForTheRivalFirst(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newFakingNetwork()
		strangers := net.natives(5*maxRivalAsked, grants)
		net.bootstrap = net.natives(2, grants)
		net.connect(append(strangers[:maxCandidates/4], net.bootstrap...)...)
		x, _ := net.indexer(t)
		for range 20 {
			natives := x.rivalsNatives(t.Context())
			if len(natives) != maxRivalAsked || !natives[0].bootstrap || !natives[1].bootstrap || natives[2].bootstrap {
				t.Fatalf("it asks %v, want %v first, and %d in all", natives, net.bootstrap, maxRivalAsked)
			}
		}
		x.natives.note(net.bootstrap[0], fails)
		time.Sleep(retryNative.Max)
		if natives := x.rivalsNatives(t.Context()); natives[maxRivalAsked-1].id != net.bootstrap[0] {
			t.Errorf("it asks %v, want %s last, which failed", natives, net.bootstrap[0])
		}
	})
}

// Over a slow line an answer takes seconds.
func TestANativeFarAwayIsHeardAboutTheRival(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		far := porttest.Native{OnLookUp: func(ctx context.Context, _, _ ports.PeerID) (ports.Answer, error) {
			select {
			case <-ctx.Done():
				return ports.Answer{}, ctx.Err()
			case <-time.After(2 * time.Second):
				return ports.Answer{}, ports.ErrNotFound
			}
		}}
		x, err := NewIndexer(domain.Rules{Self: "me", Policy: domain.DefaultTTLPolicy()}, nil, PinNatives(map[ports.PeerID]ports.Native{"n": far}),
			func() ports.Registration { return ports.Registration{PeerID: "me", Addr: "here"} }, &porttest.Recorder{})
		if err != nil {
			t.Fatal(err)
		}
		if says := x.askForRival(t.Context(), x.rivalsNatives(t.Context())[0]); says != gone {
			t.Errorf("it says %v, want that the rival is gone", says)
		}
	})
}
