package cmd

import (
	"math"
	"strconv"
	"time"

	"github.com/opencloud/ocnode/cmd/internal/display"
	"github.com/opencloud/ocnode/ports"
	"github.com/spf13/cobra"
)

func (p *program) nativesCommand() *cobra.Command {
	return p.readCommand(&cobra.Command{
		Use:   "natives",
		Short: "List the natives that a native is connected to",
		Long: `List the natives that a native is connected to, as that one sees them. FOLLOWING means that
their table has been taken over and that their changes are heard as they happen; one that
is not followed is heard by gossip and the DHT. LIVE is how many entries they hold at first
hand, LAG how long what they told last was under way.`,
		Example: `  ocnode natives
  ocnode natives --native /dns4/a.example/tcp/4101/p2p/12D3Koo… -o json`,
		SuggestFor: []string{"neighbours", "neighbors", "servers", "federation"},
	}, func(cmd *cobra.Command, native reader, _ []string) error {
		natives, err := native.Natives(cmd.Context())
		if err != nil {
			return err
		}
		var ids []ports.PeerID
		for _, n := range natives {
			ids = append(ids, n.PeerID)
		}
		shown := p.shorten(ids)
		rows := [][]string{{"PEER ID", "FOLLOWING", "ROUND TRIP", "LIVE", "LAG", addrColumn}}
		for _, n := range natives {
			following, addr := "no", ""
			if n.Following {
				following = "yes"
			}
			if len(n.Addrs) > 0 {
				addr = n.Addrs[0]
			}
			rows = append(rows, []string{
				shown(n.PeerID), following, brief(n.RoundTripSeconds), strconv.Itoa(n.Live), brief(n.LagSeconds), orDash(display.Plain(addr)),
			})
		}
		return p.print(natives, p.list(rows, addrColumn))
	})
}

// brief says in three digits how long something took, - if that is not known.
func brief(seconds float64) string {
	if !(seconds > 0) {
		return "-"
	}
	d := time.Duration(min(seconds, math.MaxInt64/1e10) * float64(time.Second))
	unit := time.Nanosecond
	for unit*1000 <= d {
		unit *= 10
	}
	return d.Round(unit).String()
}
