package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/opencloud/ocnode/modules"
	"go.uber.org/fx"
)

// What ends a node is told once, in its log and in the log's format.
func TestAModuleThatFailsIsToldOnceInTheLog(t *testing.T) {
	failing := modules.Module{Name: "failing", On: true, Wire: func(*modules.Plan) fx.Option {
		return fx.Invoke(func(tasks *modules.Tasks) {
			tasks.Run("failing", nil, func(context.Context) error { return errors.New("the disk is gone") })
		})
	}}
	t.Chdir(t.TempDir())
	var out, log bytes.Buffer
	code := run(t.Context(), append(modules.Builtin(), failing), []string{
		"--log.format", "json", "--host.listen", "/ip4/127.0.0.1/tcp/0", "--http.listen", "",
	}, nil, &out, &log)
	if code != exitRuntime || out.Len() != 0 {
		t.Errorf("exit code %d, printed %q", code, out.String())
	}
	var told []string
	for line := range strings.Lines(log.String()) {
		var l struct{ Level, Msg, Logger, Error string }
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Errorf("%v: %q", err, line)
		}
		if strings.Contains(line, "the disk is gone") {
			told = append(told, l.Level+" "+l.Logger+" "+l.Msg+": "+l.Error)
		}
	}
	if want := "ERROR node a module failed, so the node stops: failing: the disk is gone"; len(told) != 1 || told[0] != want {
		t.Errorf("told %q, want %q once", told, want)
	}
}
