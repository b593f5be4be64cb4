package modules_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/modules/config"
)

// TestConfigYAML holds the project's config.yaml against the schema: it is read strictly,
// has every key at its default, and says something of each.
func TestConfigYAML(t *testing.T) {
	text, err := os.ReadFile("../config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	whole := strings.ReplaceAll(string(text), "\n  #listen:", "\n  listen:")

	t.Run("every key stands there at its default", func(t *testing.T) {
		set, _ := loadYAML(t, whole)
		if diff := cmp.Diff(defaults(), set); diff != "" {
			t.Errorf("(-default +config.yaml)\n%s", diff)
		}
	})
	t.Run("only what means another thing once it is set is commented out", func(t *testing.T) {
		want := defaults()
		delete(want, "host.listen") // and a node without native takes free ports
		delete(want, "http.listen")
		set, cfg := loadYAML(t, string(text))
		if diff := cmp.Diff(want, set); diff != "" {
			t.Errorf("(-want +config.yaml)\n%s", diff)
		}
		if _, err := modules.NewPlan(modules.Builtin(), cfg); err != nil {
			t.Error(err)
		}
	})
	t.Run("every key has a comment", func(t *testing.T) {
		var document yaml.Node
		if err := yaml.Unmarshal([]byte(whole), &document); err != nil {
			t.Fatal(err)
		}
		sections := document.Content[0].Content
		for i := 0; i < len(sections); i += 2 {
			keys := sections[i+1].Content
			for j := 0; j < len(keys); j += 2 {
				if keys[j].HeadComment == "" {
					t.Errorf("%s.%s has none", sections[i].Value, keys[j].Value)
				}
			}
		}
	})
}

// defaults returns every key with its default.
func defaults() map[string]any {
	all := make(map[string]any)
	for _, key := range modules.Schema(modules.Builtin()).Keys() {
		all[key.Name] = key.Default
	}
	return all
}

// loadYAML returns the keys that a file sets, and the configuration that it makes.
func loadYAML(t *testing.T, text string) (set map[string]any, cfg *config.Config) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	schema := modules.Schema(modules.Builtin())
	cfg, err := schema.Load(config.Sources{File: path})
	if err != nil {
		t.Fatal(err)
	}
	set = make(map[string]any)
	for _, key := range schema.Keys() {
		if cfg.IsSet(key.Name) {
			set[key.Name] = cfg.Value(key.Name)
		}
	}
	return set, cfg
}
