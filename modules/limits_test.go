package modules_test

import (
	"strings"
	"testing"

	"github.com/opencloud/ocnode/modules"
)

func TestLimitsAndTrustThatAreNone(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"limits.connections", "15", "15 is out of range; want 16 to 16777216, or 0 to take what open files and memory allow"},
		{"limits.connections", "-1", "-1 is out of range"},
		{"limits.connections", "16", ""},
		{"limits.connections", "0", ""},
		{"limits.connections-per-site", "-1", "or 0 to take a share of all"},
		{"limits.stream-memory", "63", "63 is out of range; want 64 to"},
		{"limits.registrations", "-1", "or 0 for any number"},
		{"limits.registrations", "0", ""},
		{"limits.identities-per-site", "-1", "or 0 for any number"},
		{"limits.entries", "-1", "or 0 to take a quarter of the memory"},
		{"limits.entries", "0", ""},
		{"limits.unfound", "0", "0 is out of range; want 1 to"},
		{"limits.dht-memory", "0", "0 is out of range; want 1 to"},
		{"limits.watchers", "0", "0 is out of range; want 1 to"},
		{"limits.watchers", "many", "limits.watchers"},
		{"trust.addresses", "all", `"all" is none of auto, lan, internet and any`},
		{"trust.addresses", "internet", ""},
	} {
		t.Run(c.key+"="+c.value, func(t *testing.T) {
			_, err := planOf(t, map[string]string{c.key: c.value})
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.key) || !strings.Contains(err.Error(), c.want) || !modules.Misconfigured(err)):
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
