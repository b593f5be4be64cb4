package modules_test

import (
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"

	"github.com/opencloud/ocnode/adapters/telemetry"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports/porttest"
)

// counted has m's metrics at hand. The library's are those of all nodes of this process.
func (m *member) counted() (series func(name string) float64) {
	var reg *prometheus.Registry
	m.more = append(m.more, modules.Module{Name: "counted", Summary: "of the tests", Always: true, Wire: func(*modules.Plan) fx.Option {
		return fx.Invoke(func(r *prometheus.Registry) { reg = r })
	}})
	return func(name string) float64 {
		w := httptest.NewRecorder()
		telemetry.Handler(reg).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		return samples(m.t, w.Body.String())[name]
	}
}

// Eight natives, of which one follows nobody, as a native of the seed. It lists all, and puts go to it
// alone. Without it nothing is put and each renewal is told by following alone.
func TestSimPutsGoToTheSeedsNativeAlone(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		var natives []*member
		var counts []func(string) float64
		start := func(name string, env modules.Environment) *member {
			m := s.member(name, map[string]string{"modules": "native,dht,gossip", "log.level": "error"})
			m.env = env
			if len(natives) > 0 {
				m.settings["host.bootstrap"] = natives[0].addr()
			}
			counts = append(counts, m.counted())
			m.start()
			natives = append(natives, m)
			return m
		}
		const indexed = 7
		others := porttest.Scale(7, 3)
		for i := range others {
			start(fmt.Sprint("native-", i), modules.Environment{})
		}
		time.Sleep(5 * time.Second)
		indexers := s.indexers(indexed, natives, false)
		s.settle(natives, indexers)
		time.Sleep(5 * time.Second)

		// received counts the puts that any server received, and sent those of the natives but the seed's.
		received := func() float64 { return counts[0](`kad_dht_rpc_inbound_messages_total{message_type="PUT_VALUE"}`) }
		sent := func() (n float64) {
			for _, series := range counts[:others] {
				n += series(`ocnode_dht_puts_total{result="taken"}`) + series(`ocnode_dht_puts_total{result="refused"}`)
			}
			return n
		}
		avoided := func() (n float64) {
			for _, series := range counts[:others] {
				n += series(`ocnode_renewals_avoided_total{what="put"}`)
			}
			return n
		}
		before, skipped := received(), avoided()
		time.Sleep(time.Minute)
		if got := received() - before; got != 0 {
			t.Errorf("natives that follow each other received %v puts in a minute", got)
		}
		if n := avoided() - skipped; n < indexed || n > 2*indexed {
			t.Errorf("%v puts were avoided, and %d indexers have renewed their leases", n, indexed)
		}

		putBefore := sent()
		before = received()
		seed := start("seed", modules.Environment{Options: []fx.Option{followsNobody(), looksUpAtTicks()}})
		took, ok := until(31*time.Second, everyone([]*member{seed}, indexers)) // it looks them up at its tick
		if !ok {
			t.Errorf("%v after its start it does not list all", took)
		}
		t.Logf("it lists all after %v", took)
		samples, missing := 0, 0
		for range 60 * porttest.Scale(3, 1) {
			time.Sleep(time.Second)
			for _, x := range indexers {
				if samples++; !seed.lists(x) {
					missing++
				}
			}
		}
		puts := sent() - putBefore
		elsewhere := received() - before - puts // the seed's native grants nothing, so it puts nothing
		t.Logf("seed: %d samples, %d missing, %.0f puts, %.0f elsewhere", samples, missing, puts, elsewhere)
		if elsewhere != 0 || puts < indexed {
			t.Errorf("the natives sent %v puts to the seed's native, and %v others were received", puts, elsewhere)
		}
		for i, series := range counts[:others] {
			if n := series("ocnode_dht_strangers"); n != 1 {
				t.Errorf("native %d knows %v strangers, want the seed's native", i, n)
			}
		}
		if samples == 0 || missing > 0 {
			t.Errorf("missing at the seed's native in %d of %d samples", missing, samples)
		}
		stopAll(indexers, natives)
	})
}
