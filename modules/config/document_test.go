package config_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/modules/config"
)

func TestADocumentReadsAsWritten(t *testing.T) {
	text := config.Document{
		Comment: "One word after another, " + strings.Repeat("and another ", 10) + "to the end.\n\nA second paragraph.",
		Parts: []config.Part{
			{Section: "registry", Comment: "The times.", Lines: []config.Line{
				{Key: key("registry.ttl"), Value: 90 * time.Second, Comment: "How long."},
				{Key: key("registry.heartbeat"), Value: time.Hour, Comment: "How often.", Aside: true},
			}},
			{Section: "host", Lines: []config.Line{
				{Key: key("host.listen"), Value: []string{"a", "b: c"}, Comment: "Where.", Aside: true},
				{Key: key("host.limit"), Value: 12, Comment: "How many.", Note: "as a note"},
				{Key: key("host.relay"), Value: true, Note: "as another"},
			}},
		},
	}.String()
	want := `# One word after another, and another and another and another and another and another and another and
# another and another and another and another to the end.
#
# A second paragraph.

# The times.
registry:
  # How long.
  ttl: 90s
  # How often.
  #heartbeat: 1h

host:
  # Where.
  #listen: [a, 'b: c']

  # How many.
  limit: 12             # as a note
  relay: true           # as another
`
	equal(t, text, want)
	enter(t, text)
	c := load(t, config.Sources{File: "config.yaml"})
	equal(t, get[registry](t, c, "registry"), registry{TTL: 90 * time.Second, Heartbeat: time.Minute})
	equal(t, get[host](t, c, "host"), host{Listen: []string{"/ip4/0.0.0.0/tcp/4101"}, Limit: 12, Relay: true})
	equal(t, c.Origin("host.limit").Line, 18)
}

func TestADocumentReadsAsWrittenWhateverTheValuesAre(t *testing.T) {
	dir := t.TempDir()
	texts := rapid.OneOf(
		rapid.String(),
		rapid.SampledFrom([]string{
			"", " ", "true", "no", "~", "null", "12", "0x1f", "1e3", "2020-01-01", "a: b", "a #b", "#", "- a", "[", "{a: b}", "*a", "&a", "!t", "|", ">",
			"a\nb", "\n", "\x1b[2J", "\u2028", "\u0085", "\ufeff", "'", `"`, `\`, "%", "@", "`", "<<", "=", "é", "😀", "---", "...", strings.Repeat("word ", 60),
		}),
	).Filter(utf8.ValidString)
	full := texts.Filter(func(s string) bool { return s != "" })
	rapid.Check(t, func(r *rapid.T) {
		want := map[string]any{
			"registry.ttl":    time.Duration(rapid.Int64().Draw(r, "ttl")),
			"indexer.natives": rapid.SliceOf(full).Draw(r, "natives"),
			"indexer.meta":    rapid.MapOf(full, texts).Draw(r, "meta"),
			"host.limit":      rapid.Int().Draw(r, "limit"),
			"host.relay":      rapid.Bool().Draw(r, "relay"),
			"http.banner":     texts.Draw(r, "banner"),
		}
		var d config.Document
		for _, key := range schema().Keys() {
			if value, ok := want[key.Name]; ok {
				section, _, _ := strings.Cut(key.Name, ".")
				if n := len(d.Parts); n == 0 || d.Parts[n-1].Section != section {
					d.Parts = append(d.Parts, config.Part{Section: section})
				}
				part := &d.Parts[len(d.Parts)-1]
				part.Lines = append(part.Lines, config.Line{Key: key, Value: value, Note: "a note"})
			}
		}
		path := filepath.Join(dir, "config.yaml")
		write(t, path, d.String())
		c, err := schema().Load(config.Sources{File: path})
		if err != nil {
			r.Fatalf("%v\n%s", err, d)
		}
		for name, value := range want {
			equal(t, c.Value(name), value)
		}
		if t.Failed() {
			r.Fatalf("\n%s", d)
		}
	})
}

// key returns a key of the schema.
func key(name string) config.Key {
	for _, key := range schema().Keys() {
		if key.Name == name {
			return key
		}
	}
	panic(name)
}
