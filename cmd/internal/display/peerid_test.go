package display

import (
	"testing"

	"github.com/opencloud/ocnode/ports"
)

func TestShortenedPeerIDsStayDistinct(t *testing.T) {
	const a, b, c = "12D3KooWJ3c1cmzH6ppmBZ9oVpSTNd41", "12D3KooWPEcYawM8iSHLRHaV5eVrNd41", "12D3KooWPEcYawM8iSHLRHaV5eVSTNd41"
	for _, tt := range []struct {
		name string
		ids  []ports.PeerID
		want []string
	}{
		{"six letters of the end tell", []ports.PeerID{a, b}, []string{"12D3Koo…STNd41", "12D3Koo…VrNd41"}},
		{"six do not, and then all get more", []ports.PeerID{a, b, c}, []string{"12D3Koo…pSTNd41", "12D3Koo…eVrNd41", "12D3Koo…VSTNd41"}},
		{"the same twice, as who granted it", []ports.PeerID{a, a}, []string{"12D3Koo…STNd41", "12D3Koo…STNd41"}},
		{"nothing to leave out", []ports.PeerID{"12D3KooWSTNd41", ""}, []string{"12D3KooWSTNd41", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tail := Telling(tt.ids)
			for i, id := range tt.ids {
				if got := Short(id, tail); got != tt.want[i] {
					t.Errorf("%s is shown as %s, want %s", id, got, tt.want[i])
				}
			}
		})
	}
}
