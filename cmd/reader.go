package cmd

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"time"

	"github.com/opencloud/ocnode/adapters/httpapi"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// reader is a native that is asked, whichever way it is reached. Its errors are those of
// httpapi.Client: exit codes are made of them.
type reader interface {
	// Indexers, Indexer, Natives and Watch are those of httpapi.Client.
	Indexers(ctx context.Context, q ports.Query) (httpapi.Indexers, error)
	Indexer(ctx context.Context, id string) (httpapi.Answer, error)
	Natives(ctx context.Context) ([]httpapi.Native, error)
	Watch(ctx context.Context, w ports.WatchRequest) iter.Seq2[ports.Batch, error]
	Close()
}

var _ reader = (*httpapi.Client)(nil)

// reader returns the native that cmd asks.
func (p *program) reader(cmd *cobra.Command) (reader, error) {
	native := cmd.Flags().Lookup("native")
	switch {
	case !native.Changed && cmd.Flags().Changed(pskFlag):
		return nil, usageError{fmt.Errorf("--%s is for asking over libp2p; give --native too, or leave it out", pskFlag)}
	case !native.Changed:
		return p.node(cmd)
	case cmd.Flags().Changed(tokenFlag):
		return nil, usageError{fmt.Errorf("--%s is for asking over HTTP; leave it out with --native", tokenFlag)}
	case p.api != "":
		return nil, usageError{errors.New("--native and --api are two ways to ask; give one of them")}
	}
	// GetStringArray has none for an empty one, and a completion parses its line twice.
	given := slices.Compact(native.Value.(pflag.SliceValue).GetSlice())
	if len(given) != 1 {
		return nil, usageError{fmt.Errorf("--native is given %d times; one native is asked, so give one", len(given))}
	}
	addr := given[0]
	cfg, err := p.configure(cmd.Flags())
	if err != nil {
		return nil, err
	}
	if err := modules.CheckNative(cfg, addr); err != nil {
		return nil, usageError{fmt.Errorf("--native: %w", err)}
	}
	remote, self, stop, err := modules.Ask(cfg, addr, version())
	switch {
	case modules.Misconfigured(err):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("--native: %w", err)
	}
	return &overLibp2p{remote, modules.EntryChecker(), self, addr, stop}, nil
}

// overLibp2p reads from a native over libp2p.
type overLibp2p struct {
	native ports.Native
	proven func(*ports.Entry) error
	self   ports.PeerID
	addr   string
	stop   func()
}

// Close implements reader.
func (r *overLibp2p) Close() { r.stop() }

// Indexers implements reader.
func (r *overLibp2p) Indexers(ctx context.Context, q ports.Query) (httpapi.Indexers, error) {
	q.Proofs = true
	page, err := r.native.List(ctx, r.self, q)
	if err != nil {
		return httpapi.Indexers{}, r.fault(ctx, err)
	}
	for i := range page.Entries {
		if err := r.check(&page.Entries[i].Entry); err != nil {
			return httpapi.Indexers{}, err
		}
	}
	return httpapi.NewPage(page), nil
}

// check holds what the native answered against its proof.
func (r *overLibp2p) check(e *ports.Entry) error {
	if err := r.proven(e); err != nil {
		return fmt.Errorf("what the native answered of %s is not proven: %w; ask another one, and look at this machine's clock", e.PeerID, err)
	}
	return nil
}

// Indexer implements reader.
func (r *overLibp2p) Indexer(ctx context.Context, id string) (httpapi.Answer, error) {
	answer, err := r.native.LookUp(ctx, r.self, ports.PeerID(id))
	if errors.Is(err, ports.ErrNotFound) {
		return httpapi.Answer{}, &httpapi.APIError{
			Status: http.StatusNotFound, Code: httpapi.CodeNotFound, Message: "no live indexer " + id, Condition: answer.Condition, Missing: answer.Missing,
		}
	}
	if err != nil {
		return httpapi.Answer{}, r.fault(ctx, err)
	}
	if err := r.check(&answer.Entry); err != nil {
		return httpapi.Answer{}, err
	}
	return httpapi.NewAnswer(answer), nil
}

// Natives implements reader.
func (r *overLibp2p) Natives(ctx context.Context) ([]httpapi.Native, error) {
	natives, err := r.native.Natives(ctx, r.self)
	return httpapi.NewNatives(natives).Natives, r.fault(ctx, err)
}

// Watch implements reader.
func (r *overLibp2p) Watch(ctx context.Context, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	return func(yield func(ports.Batch, error) bool) {
		w.Proofs = true
		for b, err := range r.native.Watch(ctx, r.self, w) {
			err = r.fault(ctx, err)
			for i := range b.Changes {
				// What comes with a tick alone changes no address.
				if c := &b.Changes[i]; err == nil && c.Proof != nil && c.Proof.Record != nil {
					c.Entry.Leave = c.Kind == ports.ChangeLeft
					if err = r.check(&c.Entry); c.Entry.Leave {
						c.ExpiresAt = time.Now().Add(c.Listed.Remaining).Round(time.Millisecond) // as over HTTP
					}
				}
			}
			if err != nil {
				b = ports.Batch{}
			}
			if !yield(b, err) || err != nil {
				return
			}
		}
	}
}

// fault says what is wrong and what to do. What is neither said by the native nor by
// whoever asks is that it could not be asked.
func (r *overLibp2p) fault(ctx context.Context, err error) error {
	_, refused := errors.AsType[*ports.Refusal](err)
	switch {
	case err == nil, refused:
		return err
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case errors.Is(err, ports.ErrNotOffered):
		return fmt.Errorf("%w; it may be an older one, which only takes registrations, or no native: ask another, or its HTTP with --api", err)
	}
	return fmt.Errorf("%w at %s: %w; start the node, or give an address that its ready line or ocnode status tells", httpapi.ErrUnreachable, r.addr, err)
}

// pages returns the whole table with this metadata, sorted by PeerID, and asks for each
// page as it is needed. An error is the last thing it yields.
func pages(ctx context.Context, native reader, meta map[string]string) iter.Seq2[httpapi.Indexers, error] {
	return func(yield func(httpapi.Indexers, error) bool) {
		q := ports.Query{Limit: ports.MaxPage, Meta: meta}
		for {
			page, err := native.Indexers(ctx, q)
			if err == nil && page.Next != "" && page.Next <= q.After {
				err = fmt.Errorf("the node's next page begins at %q, which does not follow %q", page.Next, q.After)
			}
			if err != nil {
				yield(httpapi.Indexers{}, err)
				return
			}
			if !yield(page, nil) {
				return
			}
			if q.After = page.Next; q.After == "" {
				return
			}
		}
	}
}
