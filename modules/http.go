package modules

import (
	"context"
	"log/slog"
	"time"

	"github.com/opencloud/ocnode/adapters/httpapi"
	"github.com/opencloud/ocnode/adapters/telemetry"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"
)

type httpSection struct {
	Listen string `koanf:"listen" help:"host:port of HTTP, \"\" for none; without native the default is a free port"`
}

var httpModule = Module{
	Name:    "http",
	Summary: "what this node sees, over HTTP",
	Always:  true,
	Section: httpSection(httpapi.DefaultConfig()),
	Check: func(p *Plan) {
		if s := settings[httpSection](p, "http"); s.Listen != "" {
			p.check("http.listen", httpapi.Config(s).Validate())
		}
	},
	Wire: func(p *Plan) fx.Option {
		return fx.Options(
			fx.Supply(fx.Private, httpSection{Listen: p.HTTPListen()}),
			fx.Provide(newHTTP, fx.Annotate(func(h *httpServer) func() string { return h.addr }, fx.ResultTags(`name:"http"`))),
			fx.Invoke(startHTTP),
		)
	},
}

// HTTPListen returns where the node of this plan listens for HTTP, "" for nowhere.
// A node that is no native takes a free port unless it is told otherwise.
func (p *Plan) HTTPListen() string {
	if !p.IsSet("http.listen") && !p.On("native") {
		return "127.0.0.1:0"
	}
	return settings[httpSection](p, "http").Listen
}

// httpServer is the server, or nil inside if http.listen is empty.
type httpServer struct{ *httpapi.Server }

func (s *httpServer) addr() string {
	if s.Server == nil {
		return ""
	}
	return s.Addr()
}

type httpDeps struct {
	fx.In

	PeerID   ports.PeerID
	Addrs    func() []string `name:"addrs"`
	Health   *health
	Metrics  *prometheus.Registry
	Registry *domain.Registry `optional:"true"`
	Log      *slog.Logger
}

func newHTTP(s httpSection, d httpDeps) (*httpServer, error) {
	if s.Listen == "" {
		return &httpServer{}, nil
	}
	node := httpapi.Node{
		PeerID: d.PeerID, Modules: d.Health.names, Started: time.Now(), Addrs: d.Addrs, Ready: d.Health.reasons,
		Metrics:     telemetry.Handler(d.Metrics),
		ParsePeerID: ParsePeerID,
	}
	if d.Registry != nil { // a nil *Registry would be a Directory
		node.Directory = d.Registry
	}
	server, err := httpapi.New(httpapi.Config(s), node, d.Log.With("logger", "http"))
	return &httpServer{server}, err
}

func startHTTP(s *httpServer, t *tasks) {
	if s.Server == nil {
		return
	}
	t.run("http", func() error { return s.Start(context.Background()) }, func(ctx context.Context) error {
		defer s.Close(context.Background())
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.Failed():
			return err
		}
	})
}
