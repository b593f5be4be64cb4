package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencloud/ocnode/adapters/httpapi"
	"github.com/opencloud/ocnode/modules"
	"github.com/spf13/cobra"
)

func (p *program) lsCommand() *cobra.Command {
	return p.askCommand(&cobra.Command{
		Use:     "ls",
		Short:   "List who is alive, as a native sees it",
		Example: "  ocnode ls\n  ocnode ls --api 127.0.0.1:4180 -o json",
		Args:    cobra.NoArgs,
	}, func(cmd *cobra.Command, node *httpapi.Client, _ []string) error {
		indexers := []httpapi.Indexer{} // an empty list is [], not null
		for indexer, err := range node.All(cmd.Context()) {
			if err != nil {
				return err
			}
			indexers = append(indexers, indexer)
		}
		rows := [][]string{{"PEER ID", "ADDR", "STATE", "SEEN", "EXPIRES IN", "VIA"}}
		for _, x := range indexers {
			rows = append(rows, []string{string(x.PeerID), plain(x.Addr), string(x.State), seen(x), age(time.Until(x.ExpiresAt)), string(x.Via)})
		}
		return p.print(indexers, table(rows))
	})
}

func (p *program) getCommand() *cobra.Command {
	return p.askCommand(&cobra.Command{
		Use:     "get PEERID",
		Short:   "Print one live entry",
		Example: "  ocnode get 12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("get wants one PeerID and got %d; ocnode ls lists them", len(args))
			}
			return nil
		},
	}, func(cmd *cobra.Command, node *httpapi.Client, args []string) error {
		id, err := modules.ParsePeerID(args[0])
		if err != nil {
			return usageError{err}
		}
		x, err := node.Indexer(cmd.Context(), string(id))
		if err != nil {
			return err
		}
		rows := [][]string{
			{"PEER ID", string(x.PeerID)}, {"STATE", string(x.State)},
			{"SEEN", seen(x)}, {"EXPIRES IN", age(time.Until(x.ExpiresAt))}, {"VIA", string(x.Via)},
		}
		for _, addr := range x.Addrs {
			rows = append(rows, []string{"ADDR", plain(addr)})
		}
		for _, name := range slices.Sorted(maps.Keys(x.Meta)) {
			rows = append(rows, []string{"META", plain(name) + "=" + plain(x.Meta[name])})
		}
		return p.print(x, table(rows))
	})
}

func (p *program) statusCommand() *cobra.Command {
	return p.askCommand(&cobra.Command{
		Use:     "status",
		Short:   "Print how a node is",
		Example: "  ocnode status -o json",
		Args:    cobra.NoArgs,
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
		for _, addr := range s.Addrs {
			rows = append(rows, []string{"ADDR", addr})
		}
		return p.print(s, table(rows))
	})
}

// seen says when an indexer was last heard.
func seen(x httpapi.Indexer) string {
	if x.SeenAt == nil {
		return "unknown"
	}
	return age(time.Since(*x.SeenAt)) + " ago"
}

// plain makes an indexer's own words harmless to a terminal and to the table.
func plain(text string) string {
	if quoted := strconv.Quote(text); quoted[1:len(quoted)-1] != text {
		return quoted
	}
	return text
}
