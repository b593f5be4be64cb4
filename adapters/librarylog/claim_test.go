package librarylog_test

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"
	"github.com/libp2p/go-libp2p/p2p/canonicallog"
	"go.uber.org/zap"

	"github.com/opencloud/ocnode/adapters/librarylog"
	"github.com/opencloud/ocnode/ports/porttest"
)

// levelled writes lines without a time, from level on.
func levelled(level slog.Leveler) (*bytes.Buffer, slog.Handler) {
	var out bytes.Buffer
	return &out, slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
}

func TestTheClaimPassesOnAndEndsWhereItBegan(t *testing.T) {
	writer, flags, standard := log.Writer(), log.Flags(), slog.Default()
	swarm, dht := gologshim.Logger("swarm"), golog.Logger("dht")
	say := func() {
		swarm.Error("one")
		dht.Error("two")
		log.Print("three")
	}
	const said = "level=ERROR msg=one logger=libp2p component=swarm\n" +
		"level=ERROR msg=two logger=kad-dht component=dht\n" +
		"level=WARN msg=three logger=other component=log\n"
	first, h := levelled(slog.LevelInfo)
	a := librarylog.Take(h)
	say()
	second, h := levelled(slog.LevelInfo)
	b := librarylog.Take(h)
	say()
	a.Release() // it has been taken from it already
	say()
	b.Release()
	b.Release()
	swarm.Error("nobody hears this")
	dht.Error("nobody hears this")
	if first.String() != said || second.String() != said+said {
		t.Errorf("the first heard\n%sthe second\n%s", first, second)
	}
	if log.Writer() != writer || log.Flags() != flags || slog.Default() != standard {
		t.Error("the standard library's loggers are others than before")
	}
}

func TestZapsFieldsBecomeAttributesInTheirOrder(t *testing.T) {
	out, h := levelled(slog.LevelDebug)
	defer librarylog.Take(h).Release()
	golog.Logger("fields").With("z", 1).Desugar().Warn("m",
		zap.Duration("took", time.Second), zap.Strings("list", []string{"a", "b"}), zap.String("msg", "its own"), zap.Bool("a", true))
	want := `level=WARN msg=m logger=kad-dht component=fields z=1 took=1s list="[a b]" lib.msg="its own" a=true` + "\n"
	if out.String() != want {
		t.Errorf("got  %swant %s", out, want)
	}
}

func TestWhatNobodyHearsIsNotFormatted(t *testing.T) {
	var level slog.LevelVar
	_, h := levelled(&level)
	claim := librarylog.Take(h)
	defer claim.Release()
	dht := golog.Logger("lazy")
	for l, name := range map[slog.Level]string{slog.LevelDebug: "debug", slog.LevelInfo: "info", slog.LevelWarn: "warn", slog.LevelError: "error"} {
		level.Set(l)
		claim.LevelsChanged()
		if got := dht.Level().String(); got != name {
			t.Errorf("at %s kad-dht formats from %s on", name, got)
		}
		if got := gologshim.Logger("lazy").Enabled(context.Background(), l-1); got {
			t.Errorf("at %s libp2p formats what is below", name)
		}
	}
	claim.Release()
	if got := dht.Level(); got.String() != "fatal" {
		t.Errorf("without a claim kad-dht formats from %s on", got)
	}
}

func TestAComponentThatFloodsIsCounted(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		out, h := levelled(slog.LevelInfo)
		defer librarylog.Take(h).Release()
		a, b := gologshim.Logger("flood-a"), gologshim.Logger("flood-b")
		for range 100 {
			a.Warn("again")
			b.Info("not limited: it has been asked for")
		}
		time.Sleep(time.Minute)
		a.Warn("again")
		if n := strings.Count(out.String(), "component=flood-a"); n != 4 {
			t.Errorf("%d lines of a flood", n)
		}
		if !strings.HasSuffix(out.String(), "component=flood-a suppressed=97\n") {
			t.Errorf("the last line is not the sum: %s", out)
		}
		if n := strings.Count(out.String(), "component=flood-b"); n != 100 {
			t.Errorf("%d lines at info", n)
		}
	})
}

// Another process, as that logger gets its level before anything of ours runs.
func TestWhatGoesPastEveryHandlerIsSilent(t *testing.T) {
	const child = "OCNODE_TEST_CANONICAL"
	if os.Getenv(child) != "" {
		canonicallog.LogMisbehavingPeerNetAddr("peer", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, "component", nil, "message")
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), child+"=1", "GOLOG_LOG_LEVEL=debug")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil || stderr.Len() > 0 {
		t.Errorf("%v, standard error has %q", err, &stderr)
	}
}
