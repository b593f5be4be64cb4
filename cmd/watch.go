package cmd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/opencloud/ocnode/adapters/httpapi"
	"github.com/opencloud/ocnode/cmd/internal/display"
	"github.com/opencloud/ocnode/ports"
	"github.com/spf13/cobra"
)

const (
	// A native that goes away while it is watched is asked again after firstPatience, then
	// twice that, and so on up to lastPatience: soon enough for people, seldom enough for it.
	firstPatience = time.Second
	lastPatience  = 15 * time.Second
)

// kinds are the colours of what happens.
var kinds = map[string]lipgloss.Style{
	string(ports.ChangeJoined):  display.Good,
	string(ports.ChangeLate):    display.Warn,
	string(ports.ChangeStale):   display.Warn,
	string(ports.ChangeExpired): display.Bad,
	string(ports.ChangeLeft):    display.Faint,
	httpapi.EventReset:          display.Warn,
}

func (p *program) watchCommand() *cobra.Command {
	var request ports.WatchRequest
	cmd := p.readCommand(&cobra.Command{
		Use:   "watch",
		Short: "Print what changes, as it happens",
		Long: `Print what changes, as it happens: first a snapshot of who is there, then who joined, was
updated, is late, expired or left, a line each with the time, the PeerID, its address and
the native that took it. Ctrl-C ends it.

With -o json every line is a JSON object. Some have a cursor: --cursor goes on from there
and misses nothing. A native that goes away is asked again by itself; what happened
meanwhile follows, or a reset and a new snapshot if the native does not know any more.
Over --native each entry is checked here against its proof, as by ocnode ls.`,
		Example: `  ocnode watch
  ocnode watch --native /dns4/a.example/tcp/4101/p2p/12D3Koo…
  ocnode watch --api 127.0.0.1:4180 --renewed -o json`,
		SuggestFor: []string{"follow", "tail", "events", "monitor", "subscribe"},
	}, func(cmd *cobra.Command, native reader, _ []string) error {
		if len(request.Cursor) > ports.MaxCursorBytes {
			return usageError{fmt.Errorf("--cursor has %d bytes, and no cursor is longer than %d; take it as a line of -o json has it", len(request.Cursor), ports.MaxCursorBytes)}
		}
		ctx, stop := whileRead(cmd.Context(), p.out)
		defer stop()
		return p.watch(ctx, native, request)
	})
	cmd.Flags().BoolVar(&request.Renewed, "renewed", false, "also each heartbeat that changes nothing but times")
	cmd.Flags().StringVar(&request.Cursor, "cursor", "", "go on from there, which an earlier watch of this native told")
	return cmd
}

// watch prints until ctx ends, which is no error, or until going on is of no use.
func (p *program) watch(ctx context.Context, native reader, request ports.WatchRequest) error {
	var narrator httpapi.Narrator
	began := false
	patience := firstPatience
	for {
		err := error(errors.New("it ended the watch without a word"))
		for b, failure := range native.Watch(ctx, request) {
			if failure != nil {
				err = failure
				break
			}
			// Until its snapshot is whole there is nowhere to go on from.
			if b.Reset != "" || b.Cursor != "" {
				request.Cursor = b.Cursor
			}
			began, patience = true, firstPatience
			for _, e := range narrator.Events(b) {
				if err := p.tell(e); err != nil {
					return err
				}
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case !began || !passing(err):
			return err
		}
		fmt.Fprintf(p.log, "ocnode: the watch broke off: %s; asking again in %s\n", strings.ReplaceAll(err.Error(), "\n", "; "), patience)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(patience):
		}
		patience = min(2*patience, lastPatience)
	}
}

// passing reports whether a watch that ended with err may go on in a while.
func passing(err error) bool {
	if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
		return refusal.Code == ports.CodeBusy || refusal.Code == ports.CodeTooSlow
	}
	if answer, ok := errors.AsType[*httpapi.APIError](err); ok {
		return answer.Status == http.StatusServiceUnavailable
	}
	_, lied := errors.AsType[*ports.ProofError](err)
	return !lied && !errors.Is(err, ports.ErrNotOffered)
}

// tell prints one event.
func (p *program) tell(e httpapi.Event) error {
	switch {
	case p.output == outputJSON && e.Data != nil:
		return p.printLine(e.Data)
	case p.output == outputJSON, e.Kind == "":
		return nil
	case e.Kind == httpapi.EventReset && e.Reset == ports.ResetNew:
		return nil // how else should it begin
	}
	// To a terminal it is as in ls: PeerIDs short, and a time of today.
	at, shown := time.RFC3339, func(id ports.PeerID) string { return string(id) }
	if terminal(p.out) {
		at, shown = time.TimeOnly, func(id ports.PeerID) string { return display.Short(id, display.ShortTail) }
	}
	cells := []string{time.Now().Format(at), e.Kind}
	switch e.Kind {
	case httpapi.EventReset:
		cells = append(cells, afresh(e.Reset))
	case httpapi.EventSynced:
		cells = append(cells, strconv.Itoa(e.Live)+" live")
		if e.Condition != "" {
			cells = append(cells, reserve(e.Condition, e.Missing))
		}
	default:
		cells = append(cells, shown(e.Change.PeerID), orDash(display.Plain(e.Change.Addr)), orDash(shown(e.Change.Native)))
	}
	cells = printable([][]string{cells})[0]
	const kindWidth = len(ports.ChangeSnapshot) // the longest
	space := strings.Repeat(" ", max(0, kindWidth-lipgloss.Width(cells[1])))
	if style, ok := kinds[e.Kind]; ok && p.colored() {
		cells[1] = style.Render(cells[1])
	}
	cells[1] += space
	return p.write(strings.Join(cells, gap) + "\n")
}

// afresh says why a watch begins again with a snapshot.
func afresh(why ports.Reset) string {
	what := "forget what was: all that is there follows"
	switch why {
	case ports.ResetTooOld:
		return what + "; more happened since the cursor than the native remembers"
	case ports.ResetUnknown:
		return what + "; the cursor is not this native's, or of before it was restarted"
	}
	return what
}
