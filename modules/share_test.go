package modules

import (
	"testing"

	"github.com/opencloud/ocnode/modules/config"
	"github.com/opencloud/ocnode/ports"
	"github.com/spf13/pflag"
)

func TestTheTableIsAsLargeAsTheMemoryAllows(t *testing.T) {
	for _, tt := range []struct {
		name   string
		set    int
		memory uint64
		want   int
	}{
		{"a container of 256 MiB", 0, 256 << 20, 131_072},
		{"a machine of 8 GiB", 0, 8 << 30, 4_194_304},
		{"a number that is set", 5_000_000, 1 << 30, 5_000_000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := entries(tt.set, tt.memory); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// The natives that the operator has named fill the table without a share.
func TestTheOperatorsNativesAreThoseThatTheConfigurationNames(t *testing.T) {
	const a, b, c = "12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF", "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA", "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
	for _, tt := range []struct {
		name               string
		natives, bootstrap string
		want               map[ports.PeerID]bool
	}{
		{"none", "", "", map[ports.PeerID]bool{a: false, "": false}},
		{"by bootstrap", "", "/ip4/192.0.2.1/tcp/4101/p2p/" + a + ",/dnsaddr/natives.example", map[ports.PeerID]bool{a: true, b: false, "": false}},
		{"by the list", a + "," + b, "/ip4/192.0.2.1/tcp/4101/p2p/" + a, map[ports.PeerID]bool{a: true, b: true, c: false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			schema := Schema(Builtin())
			flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
			schema.AddFlags(flags)
			for key, value := range map[string]string{"trust.natives": tt.natives, "host.bootstrap": tt.bootstrap} {
				if err := flags.Set(key, value); err != nil {
					t.Fatal(err)
				}
			}
			cfg, err := schema.Load(config.Sources{Flags: flags})
			if err != nil {
				t.Fatal(err)
			}
			p, err := NewPlan(Builtin(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			named := ours(p, newTrusted(p, "me", &Reloads{}))
			for id, want := range tt.want {
				if got := named(id); got != want {
					t.Errorf("%q is named: %t, want %t", id, got, want)
				}
			}
		})
	}
}
