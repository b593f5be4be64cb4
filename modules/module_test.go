package modules_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/modules/config"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
	"go.uber.org/fx"
)

// counted is a Store of a module of the tests.
type counted struct {
	ports.Store
	made *int
}

func storeModule(made *int) modules.Module {
	return modules.Module{
		Name: "shelf", Summary: "a store of the tests", Fills: modules.Store,
		Wire: func(*modules.Plan) fx.Option {
			return fx.Provide(func(domain.Rules) ports.Store { *made++; return counted{made: made} })
		},
	}
}

func TestAPortIsFilledByOneModule(t *testing.T) {
	made := 0
	settings := leastSettings(t)
	settings["modules"] = "native,dht,shelf"
	_, err := planOf(t, settings, storeModule(&made))
	if err == nil || !strings.Contains(err.Error(), "dht and shelf both plug in the Store; turn one of them off") {
		t.Errorf("the plan says %v", err)
	}
	settings["modules"] = "native,shelf"
	plan, err := planOf(t, settings, storeModule(&made))
	if err != nil {
		t.Fatal(err)
	}
	node, err := modules.New(plan, modules.Environment{StopTimeout: porttest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	stop(t, node)
	if made != 1 {
		t.Errorf("the module that is on made its store %d times", made)
	}
}

func TestAllMistakesAreToldAtOnceAndNoneThatFollowsFromAnother(t *testing.T) {
	for _, c := range []struct {
		name     string
		settings map[string]string
		want     []string
	}{
		{"a wrong form and a pair that does not go together", map[string]string{
			"host.listen": "", "log.level": "loud", "registry.ttl": "10s", "registry.refresh": "x",
		}, []string{"registry.refresh", "host.listen", "log.level", "registry.ttl"}},
		{"both that do not go with a third", map[string]string{
			"registry.ttl": "20s",
		}, []string{"registry.ttl", "registry.refresh"}},
		{"a value of the wrong form is held against nothing", map[string]string{
			"registry.ttl": "66", "registry.heartbeat": "90s",
		}, []string{"registry.ttl"}},
		{"nor are modules that may be meant to be on", map[string]string{
			"modules": "indexer,nativ",
		}, []string{"modules"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := planOf(t, c.settings)
			var all *config.Error
			if !errors.As(err, &all) {
				t.Fatalf("got %v", err)
			}
			told := map[string]bool{}
			for _, m := range all.Mistakes {
				told[m.Key] = true
			}
			for _, key := range c.want {
				if !told[key] {
					t.Errorf("nothing is told of %s", key)
				}
			}
			if len(all.Mistakes) != len(c.want) {
				t.Errorf("got\n%v\nwant one for each of %v", err, c.want)
			}
		})
	}
}

// A default may depend on what else the node is: to set it is then to change it, and so
// is to become something else.
func TestAReloadComparesWhatCountsInTheEnd(t *testing.T) {
	const ports = "/ip4/0.0.0.0/tcp/4101,/ip6/::/tcp/4101,/ip4/0.0.0.0/udp/4101/quic-v1,/ip6/::/udp/4101/quic-v1"
	with := func(settings ...string) map[string]string {
		all := map[string]string{"modules": "dht"}
		for i := 0; i < len(settings); i += 2 {
			all[settings[i]] = settings[i+1]
		}
		return all
	}
	for _, tt := range []struct {
		name    string
		was, is map[string]string
		want    string
	}{
		{"nothing", with(), with(), "taken=[]\n"},
		{"set to the default of a native", with(), with("http.listen", "127.0.0.1:4180", "host.listen", ports),
			"taken=[] needRestart=\"[http.listen host.listen]\"\n"},
		{"and no longer", with("http.listen", "127.0.0.1:4180"), with(), "taken=[] needRestart=[http.listen]\n"},
		{"set to what a node without native has anyway", with(), with("http.listen", "127.0.0.1:0"), "taken=[]\n"},
		{"a native by now", with(), with("modules", "native,dht"),
			"taken=[] needRestart=\"[modules.native http.listen host.listen]\"\n"},
		{"a native by now, that listens where it did", with("http.listen", "", "host.listen", ports), with("modules", "native,dht", "http.listen", "", "host.listen", ports),
			"taken=[] needRestart=[modules.native]\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			tt.was["data.dir"] = t.TempDir()
			tt.is["data.dir"] = tt.was["data.dir"]
			node := newNode(t, tt.was, modules.Environment{Log: &log})
			defer stop(t, node)
			plan, err := planOf(t, tt.is)
			if err != nil {
				t.Fatal(err)
			}
			node.Reload(plan)
			if !strings.HasSuffix(log.String(), tt.want) {
				t.Errorf("the log says\n%swant %s", &log, tt.want)
			}
		})
	}
}

func TestAReloadTakesWhatCanChangeAndNamesWhatCannot(t *testing.T) {
	var log bytes.Buffer
	settings := leastSettings(t)
	settings["modules"] = "native"
	plan, err := planOf(t, settings)
	if err != nil {
		t.Fatal(err)
	}
	node, err := modules.New(plan, modules.Environment{Log: &log, StopTimeout: porttest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, node)
	settings["log.level"], settings["registry.ttl"] = "debug", "100s"
	changed, err := planOf(t, settings)
	if err != nil {
		t.Fatal(err)
	}
	node.Log().Debug("before")
	node.Reload(changed)
	node.Log().Debug("after")
	if text := log.String(); strings.Contains(text, "before") || !strings.Contains(text, "after") ||
		!strings.Contains(text, "taken=[log.level] needRestart=[registry.ttl]") {
		t.Errorf("the log says\n%s", text)
	}
	log.Reset()
	node.Reload(changed)
	if text := log.String(); !strings.Contains(text, "taken=[] needRestart=[registry.ttl]") {
		t.Errorf("what still waits for a restart is not told again:\n%s", text)
	}
}
