package cmd

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencloud/ocnode/adapters/httpapi"
	"github.com/opencloud/ocnode/cmd/internal/display"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"github.com/spf13/cobra"
)

func (p *program) lsCommand() *cobra.Command {
	var wide bool
	var wanted []string
	cmd := p.readCommand(&cobra.Command{
		Use:   "ls",
		Short: "List who is alive, as a native sees it",
		Long: `List who is alive, as a native sees it. STATE is live or, once a heartbeat is overdue,
late; LAST SEEN is how long ago the last one came; VIA is the native that took it. With
--wide, SOURCE is where this native has that from: own, native (the one that took it) or
dht.

A terminal gets PeerIDs shortened, as in 12D3Koo…TjYWaF; ocnode get takes them so.
Piped, and with -o json, they are whole. Over --native each entry is checked here against
its proof, and one that its proof does not prove is an error.`,
		Example: `  ocnode ls
  ocnode ls --api 127.0.0.1:4180 -o json
  ocnode ls --native /dns4/a.example/tcp/4101/p2p/12D3Koo… --meta zone=eu-1 --wide`,
		SuggestFor: []string{"list", "members", "peers", "indexers"},
	}, func(cmd *cobra.Command, native reader, _ []string) error {
		meta, err := parseMeta(wanted)
		if err != nil {
			return err
		}
		indexers := []httpapi.Indexer{} // an empty list is [], not null
		var ids []ports.PeerID
		var last httpapi.Indexers
		for page, err := range pages(cmd.Context(), native, meta) {
			if err != nil {
				return err
			}
			last = page
			indexers = append(indexers, page.Indexers...)
			for _, x := range page.Indexers {
				ids = append(ids, x.PeerID, x.Via)
			}
		}
		shown := p.shorten(ids)
		rows := [][]string{{"PEER ID", addrColumn, stateColumn, "LAST SEEN", "EXPIRES IN", "VIA"}}
		elastic := addrColumn
		if wide {
			rows[0] = append(rows[0], "SOURCE", "EXPIRES", "META", "ADDRS")
			elastic = "" // who wants all of it gets all of it
		}
		for _, x := range indexers {
			row := []string{
				shown(x.PeerID), display.Plain(x.Addr), string(x.State), seen(x), age(remains(x)), orDash(shown(x.Via)),
			}
			if wide {
				row = append(row, orDash(string(x.Source)), x.ExpiresAt.UTC().Format(time.RFC3339), orDash(labels(x.Meta)), addresses(x.Addrs))
			}
			rows = append(rows, row)
		}
		return p.print(indexers, p.caveat(last.Condition, last.Missing)+p.list(rows, elastic))
	})
	cmd.Flags().BoolVar(&wide, "wide", false, "more columns: source, end, metadata and all addresses")
	cmd.Flags().StringArrayVar(&wanted, "meta", nil, "only those with this metadata, `name=value`; given several times, all must hold")
	return cmd
}

// caveat is a line above the table of a native whose word is not the last. What reads a
// pipe expects a table, or JSON, and so it goes beside it there.
func (p *program) caveat(c ports.Condition, missing []ports.PeerID) string {
	switch {
	case c == "":
	case terminal(p.out) && p.output != outputJSON:
		return "# " + reserve(c, missing) + "\n"
	default:
		fmt.Fprintf(p.log, "ocnode: %s\n", reserve(c, missing))
	}
	return ""
}

// parseMeta reads name=value of a command line.
func parseMeta(wanted []string) (map[string]string, error) {
	meta := make(map[string]string)
	for _, text := range wanted {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, usageError{fmt.Errorf("--meta %q: want name=value, such as zone=eu-1", text)}
		}
		if !utf8.ValidString(text) {
			return nil, usageError{fmt.Errorf("--meta %q: not UTF-8", text)}
		}
		if other, given := meta[name]; given && other != value {
			return nil, usageError{fmt.Errorf("--meta %s: it cannot be both %q and %q", name, other, value)}
		}
		meta[name] = value
	}
	if refusal := ports.CheckMeta(meta); refusal != nil {
		return nil, usageError{fmt.Errorf("--meta: nobody has that: %s", refusal.Message)}
	}
	return meta, nil
}

func (p *program) getCommand() *cobra.Command {
	cmd := p.readCommand(&cobra.Command{
		Use:   "get PEERID",
		Short: "Print one live entry",
		Long: `Print one live entry, with all addresses and its metadata. The PeerID may be shortened by
… or ... where ls shortens it, or anywhere else, as long as one live indexer alone is meant.
A whole one that the native does not hold is looked up in the DHT. PROOF is whose word
it is: signed by the indexer itself, or bare. Over --native that is
checked here, and an answer that its proof does not prove is an error.`,
		Example: `  ocnode get 12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF
  ocnode get 12D3Koo…TjYWaF -o json
  ocnode get …TjYWaF --native /dns4/a.example/tcp/4101/p2p/12D3Koo…`,
		SuggestFor: []string{"show", "describe", "lookup"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("get wants one PeerID and got %d; ocnode ls lists them", len(args))
			}
			return nil
		},
	}, func(cmd *cobra.Command, native reader, args []string) error {
		id, err := whole(cmd.Context(), native, args[0])
		if err != nil {
			return err
		}
		x, err := native.Indexer(cmd.Context(), string(id))
		if err != nil {
			return err
		}
		last := seen(x.Indexer)
		if x.SeenAt != nil {
			last += " ago"
		}
		rows := [][]string{
			{"PEER ID", string(x.PeerID)}, {stateColumn, string(x.State)},
			{"LAST SEEN", last}, {"EXPIRES IN", age(remains(x.Indexer))}, {"VIA", orDash(string(x.Via))},
			{"SOURCE", orDash(string(x.Source))}, {"PROOF", x.Proof},
		}
		rows = append(rows, doubts(x.Condition, x.Missing)...)
		for _, addr := range x.Addrs {
			rows = append(rows, []string{"ADDR", display.Plain(addr)})
		}
		for _, name := range slices.Sorted(maps.Keys(x.Meta)) {
			rows = append(rows, []string{"META", display.Plain(name) + "=" + display.Plain(x.Meta[name])})
		}
		return p.print(x, p.details(rows))
	})
	cmd.ValidArgsFunction = p.completePeerID
	return cmd
}

// whole returns the PeerID that text is, or that alone it can stand for if it is
// shortened.
func whole(ctx context.Context, native reader, text string) (ports.PeerID, error) {
	head, tail, shortened := strings.Cut(strings.Replace(text, "...", display.Ellipsis, 1), display.Ellipsis)
	if !shortened {
		id, err := modules.ParsePeerID(text)
		if err != nil {
			return "", usageError{err}
		}
		return id, nil
	}
	var meant []string
	var last httpapi.Indexers
	for page, err := range pages(ctx, native, nil) {
		if err != nil {
			return "", err
		}
		last = page
		for _, x := range page.Indexers {
			if id := string(x.PeerID); len(id) >= len(head)+len(tail) && strings.HasPrefix(id, head) && strings.HasSuffix(id, tail) {
				meant = append(meant, id)
			}
		}
	}
	switch len(meant) {
	case 0:
		err := fmt.Errorf("%w: no live indexer is %q; ocnode ls lists them", httpapi.ErrNotFound, text)
		if last.Condition != "" {
			err = fmt.Errorf("%w; %s", err, reserve(last.Condition, last.Missing))
		}
		return "", err
	case 1:
		return ports.PeerID(meant[0]), nil
	}
	return "", usageError{fmt.Errorf("%q is short for %d live indexers, %s and %s among them; give more of it", text, len(meant), meant[0], meant[1])}
}

func (p *program) statusCommand() *cobra.Command {
	return p.askCommand(&cobra.Command{
		Use:   "status",
		Short: "Print how a node is",
		Long: `Print how a node is: its PeerID and addresses, the modules that are on, for how long it
has run, and how many indexers it shows alive and knows of. CONDITION is there if a native
cannot be relied on yet (warming), or any more (isolated, unheard, partial). MISSING is a
native that it hears no more.`,
		Example:    "  ocnode status\n  ocnode status --api 127.0.0.1:4180 -o json",
		SuggestFor: []string{"info", "health", "stats"},
	}, func(cmd *cobra.Command, node *httpapi.Client, _ []string) error {
		s, err := node.Status(cmd.Context())
		if err != nil {
			return err
		}
		rows := [][]string{
			{"PEER ID", string(s.PeerID)}, {"MODULES", strings.Join(s.Modules, ",")},
			{"UPTIME", age(time.Duration(s.UptimeSeconds) * time.Second)},
			{"LIVE", strconv.Itoa(s.Live)}, {"KNOWN", strconv.Itoa(s.Known)},
		}
		rows = append(rows, doubts(s.Condition, s.Missing)...)
		for _, addr := range s.Addrs {
			rows = append(rows, []string{"ADDR", addr})
		}
		return p.print(s, p.details(rows))
	})
}

// doubts are the rows of a native's condition, and of the natives that it hears no more.
func doubts(c ports.Condition, missing []ports.PeerID) (rows [][]string) {
	if c != "" {
		rows = append(rows, []string{"CONDITION", display.Plain(string(c))})
	}
	for _, id := range missing {
		rows = append(rows, []string{"MISSING", display.Plain(string(id))})
	}
	return rows
}

// seen says how long ago an indexer was last heard.
func seen(x httpapi.Indexer) string {
	if x.SeenAt == nil {
		return "unknown"
	}
	return age(time.Since(*x.SeenAt))
}

// remains is what is left of a lease: by the native's own clock, if it says so.
func remains(x httpapi.Indexer) time.Duration {
	if x.State == ports.StateStale {
		return 0
	}
	if x.LeftSeconds > 0 {
		return time.Duration(min(x.LeftSeconds, math.MaxInt64/1e10) * float64(time.Second))
	}
	return time.Until(x.ExpiresAt)
}

// labels writes metadata as name=value,name=value.
func labels(meta map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(meta)) {
		all = append(all, display.Plain(name)+"="+display.Plain(meta[name]))
	}
	return strings.Join(all, ",")
}

func addresses(addrs []string) string {
	var all []string
	for _, addr := range addrs {
		all = append(all, display.Plain(addr))
	}
	return strings.Join(all, ",")
}
