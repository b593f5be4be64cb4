package cmd

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/httpapi"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// paged is a reader of so many indexers, of whom only one in ten pages has any.
type paged struct {
	reader
	n       int
	circles bool
}

func (r paged) Indexers(_ context.Context, q ports.Query) (page httpapi.Indexers, _ error) {
	begin := 0
	_, _ = fmt.Sscanf(string(q.After), "p%d", &begin)
	end := min(begin+q.Limit, r.n)
	if begin/q.Limit%10 == 0 {
		for i := begin; i < end; i++ {
			page.Indexers = append(page.Indexers, httpapi.Indexer{PeerID: ports.PeerID(fmt.Sprintf("p%07d", i))})
		}
	}
	if end < r.n {
		page.Next = ports.PeerID(fmt.Sprintf("p%07d", end))
	}
	if r.circles {
		page.Next = "p0001000"
	}
	return page, nil
}

func TestPagesAreReadToTheLast(t *testing.T) {
	seen := 0
	for page, err := range pages(t.Context(), paged{n: 10*ports.MaxPage + 7}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		seen += len(page.Indexers)
	}
	if seen != ports.MaxPage+7 {
		t.Errorf("%d indexers", seen)
	}
	for range pages(t.Context(), paged{n: 10 * ports.MaxPage}, nil) {
		break // must be allowed
	}
	var last error
	for _, last = range pages(t.Context(), paged{n: 1, circles: true}, nil) {
	}
	if last == nil || !strings.Contains(last.Error(), `"p0001000", which does not follow "p0001000"`) {
		t.Errorf("in circles it ends with %v", last)
	}
}

// TestWhatANativeSaysOverLibp2pEndsAsOverHTTP holds the exit codes of both ways together.
func TestWhatANativeSaysOverLibp2pEndsAsOverHTTP(t *testing.T) {
	for name, tc := range map[string]struct {
		err   error
		code  int
		words string
	}{
		"not found":   {fmt.Errorf("look up: %w", ports.ErrNotFound), exitNotFound, "no live indexer x; this native is partial: it does not hear n1, n2,"},
		"away":        {errors.New("connect: refused"), exitUnreachable, "node unreachable at /ip4/x: connect: refused; start the node"},
		"not offered": {fmt.Errorf("look up: %w", ports.ErrNotOffered), exitRuntime, "ask another, or its HTTP with --api"},
		"busy":        {ports.Refuse(ports.CodeBusy, "later"), exitRuntime, "later"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &overLibp2p{self: "me", addr: "/ip4/x", native: porttest.Native{
				OnLookUp: func(_ context.Context, sender, id ports.PeerID) (ports.Answer, error) {
					if sender != "me" || id != "x" {
						t.Errorf("%s asks for %s", sender, id)
					}
					return ports.Answer{Condition: ports.ConditionPartial, Missing: []ports.PeerID{"n1", "n2"}}, tc.err
				},
				OnNatives: func(_ context.Context, sender ports.PeerID) ([]ports.NativeStatus, error) {
					if sender != "me" {
						t.Errorf("%s asks for the natives", sender)
					}
					return nil, tc.err
				},
				OnWatch: func(_ context.Context, sender ports.PeerID, _ ports.WatchRequest) iter.Seq2[ports.Batch, error] {
					if sender != "me" {
						t.Errorf("%s watches", sender)
					}
					return func(yield func(ports.Batch, error) bool) { yield(ports.Batch{}, tc.err) }
				},
			}}
			_, err := r.Indexer(t.Context(), "x")
			err = (&program{}).answered(err)
			if err == nil || exitCode(err) != tc.code || !strings.Contains(err.Error(), tc.words) {
				t.Errorf("it ends with %v (exit code %d), want %d and %s", err, exitCode(err), tc.code, tc.words)
			}
			if errors.Is(tc.err, ports.ErrNotFound) {
				return
			}
			if _, err := r.Natives(t.Context()); exitCode(err) != tc.code || !strings.Contains(err.Error(), tc.words) {
				t.Errorf("natives ends with %v (exit code %d), want %d and %s", err, exitCode(err), tc.code, tc.words)
			}
			for _, err := range r.Watch(t.Context(), ports.WatchRequest{}) {
				if exitCode(err) != tc.code || !strings.Contains(err.Error(), tc.words) {
					t.Errorf("the watch ends with %v (exit code %d), want %d and %s", err, exitCode(err), tc.code, tc.words)
				}
			}
		})
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	r := &overLibp2p{native: porttest.Native{OnList: func(ctx context.Context, _ ports.PeerID, _ ports.Query) (ports.Page, error) {
		return ports.Page{}, ctx.Err()
	}}}
	if _, err := r.Indexers(cancelled, ports.Query{}); !errors.Is(err, context.Canceled) || errors.Is(err, httpapi.ErrUnreachable) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestWhatIsNotProvenIsAnErrorOverLibp2p(t *testing.T) {
	const addr = "/ip4/192.0.2.1/tcp/4001"
	word := prooftest.NewSigner(t).Says(t, time.Now(), 1, addr)
	sound, moved, plain := word.Entry(0), word.Entry(0), word.Entry(0)
	moved.Addr, moved.Addrs = "/ip4/203.0.113.1/tcp/4001", nil
	plain.Proof = nil
	for name, tc := range map[string]struct {
		entry ports.Entry
		words string
	}{
		"sound": {sound, ""}, "without a proof": {plain, ""},
		"moved": {moved, "what the native answered of " + string(word.Claim.PeerID) + " is not proven: "},
	} {
		t.Run(name, func(t *testing.T) {
			listed := ports.Listed{Entry: tc.entry, Remaining: time.Minute}
			r := &overLibp2p{self: "me", proven: modules.EntryChecker(), native: porttest.Native{
				OnLookUp: func(context.Context, ports.PeerID, ports.PeerID) (ports.Answer, error) {
					return ports.Answer{Listed: listed}, nil
				},
				OnList: func(_ context.Context, sender ports.PeerID, q ports.Query) (ports.Page, error) {
					if sender != "me" || !q.Proofs {
						t.Errorf("%s asks, for proofs: %t", sender, q.Proofs)
					}
					return ports.Page{Entries: []ports.Listed{listed}}, nil
				},
				OnWatch: func(_ context.Context, _ ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
					return func(yield func(ports.Batch, error) bool) {
						if !w.Proofs {
							t.Error("no proofs are asked for")
						}
						yield(ports.Batch{Changes: []ports.Change{{Kind: ports.ChangeJoined, Listed: listed}}, Cursor: "1"}, nil)
					}
				},
			}}
			_, one := r.Indexer(t.Context(), string(word.Claim.PeerID))
			page, all := r.Indexers(t.Context(), ports.Query{})
			var watched error
			told := 0
			for b, err := range r.Watch(t.Context(), ports.WatchRequest{}) {
				told, watched = told+len(b.Changes), err
			}
			for what, err := range map[string]error{"get": one, "ls": all, "watch": watched} {
				if (err != nil) != (tc.words != "") || err != nil && !strings.HasPrefix(err.Error(), tc.words) {
					t.Errorf("%s ends with %v, want %q", what, err, tc.words)
				}
			}
			if whole := tc.words == ""; (len(page.Indexers) == 1) != whole || (told == 1) != whole {
				t.Errorf("%d are listed, %d told", len(page.Indexers), told)
			}
		})
	}
}
