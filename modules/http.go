package modules

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/opencloud/ocnode/adapters/httpapi"
	"github.com/opencloud/ocnode/adapters/telemetry"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/domain/client"
	"github.com/opencloud/ocnode/modules/config"
	"github.com/opencloud/ocnode/ports"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"
)

type httpSection struct {
	Listen string   `koanf:"listen" help:"host:port of HTTP, \"\" for none; without native the default is a free port"`
	Token  string   `koanf:"token" help:"the file of the token that HTTP asks for, \"\" for none; beyond loopback there must be one"`
	Hosts  []string `koanf:"hosts" help:"other names by which HTTP may be asked, such as a proxy's, without a port"`
}

// httpComments are the comments on httpSection in a configuration file.
var httpComments = map[string]Comment{
	"listen": {
		Text: "host:port of HTTP (health, metrics, and a native's live table), or \"\" for none. It has no TLS: leave it on " +
			"loopback, or put a proxy before it; beyond loopback it must have a token.",
		LeftOut:              "a native takes this one, and any other node a free port, which its log's ready line names.",
		LeftOutWithoutNative: "it takes a free port, which the log's ready line names.",
	},
	"token": {Text: "The file of the token that every request must bring (Authorization: Bearer …) but those to /healthz and " +
		"/readyz: 16 to 4096 bytes on one line, for nobody else to read. (umask 077; openssl rand -hex 32 >FILE) makes one."},
	"hosts": {Text: "Names, without a port, by which HTTP may be asked beside localhost, the node's own addresses and the host of " +
		"http.listen, such as that of a proxy or a Service: any other is refused, so that no web page reads it under a name of its own."},
}

// freeHTTP is where a node listens that nobody asks at a port they know.
const freeHTTP = "127.0.0.1:0"

var httpModule = Module{
	Name:     "http",
	Summary:  "what this node sees, over HTTP",
	Always:   true,
	Section:  httpSection{Listen: httpapi.DefaultConfig().Listen, Hosts: []string{}},
	Comments: httpComments,
	Check: func(p *Plan) {
		s := Settings[httpSection](p, "http")
		_, err := httpapi.ReadToken(s.Token)
		p.Check("http.token", err)
		p.CheckItems("http.hosts", s.Hosts, httpapi.CheckHost)
		if s.Listen == "" {
			return
		}
		p.Check("http.listen", httpapi.CheckListen(s.Listen))
		if s.Token == "" && httpapi.BeyondLoopback(s.Listen) {
			p.mistake("http.listen", []string{"http.token"}, "%s", withoutKey("http.listen", httpapi.NoToken(s.Listen)))
		}
	},
	Wire: func(p *Plan) fx.Option {
		s := Settings[httpSection](p, "http")
		listen, _ := effective(p.config, "http.listen")
		s.Listen = listen.(string)
		return fx.Options(
			fx.Supply(fx.Private, s),
			fx.Provide(newHTTP, fx.Annotate(func(h *httpServer) func() string { return h.addr }, fx.ResultTags(`name:"http"`))),
			fx.Invoke(startHTTP),
		)
	},
}

// HTTPListen returns where the node of cfg listens for HTTP, "" for nowhere. A node that
// is no native takes a free port unless it is told otherwise. The rest of cfg may be wrong.
func HTTPListen(cfg *config.Config) (string, error) {
	listen, _ := effective(cfg, "http.listen")
	if listen == "" {
		return "", nil
	}
	p := &Plan{config: cfg}
	p.Check("http.listen", httpapi.CheckListen(listen.(string)))
	return listen.(string), config.NewError(p.mistakes)
}

// HTTPToken returns the token that the node of cfg asks for, "" for none. The error is a
// *config.Error; the rest of cfg may be wrong.
func HTTPToken(cfg *config.Config) (string, error) {
	s, err := config.Get[httpSection](cfg, "http")
	if err != nil {
		return "", err
	}
	p := &Plan{config: cfg}
	token, err := httpapi.ReadToken(s.Token)
	p.Check("http.token", err)
	return token, config.NewError(p.mistakes)
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
	Indexer  *client.Indexer  `optional:"true"`
	Finder   *client.Finder   `optional:"true"`
	Log      *slog.Logger
	Env      Environment
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
	if d.Finder != nil {
		node.Finder = d.Finder
	}
	if d.Indexer != nil {
		node.Unlisted = d.Indexer.Unlisted
	}
	token, err := httpapi.ReadToken(s.Token)
	if err != nil {
		return nil, fmt.Errorf("http.token: %w", err)
	}
	server, err := httpapi.New(httpapi.Config{Listen: s.Listen, Token: token, Hosts: s.Hosts, CountLoopback: d.Env.CountLoopback}, node, d.Log.With(loggerKey, loggerHTTP))
	return &httpServer{server}, err
}

func startHTTP(s *httpServer, t *Tasks) {
	if s.Server == nil {
		return
	}
	t.Run("http", func() error { return s.Start(context.Background()) }, func(ctx context.Context) error {
		defer s.Close(context.Background())
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.Failed():
			return err
		}
	})
}
