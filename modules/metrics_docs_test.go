package modules_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// What is written about the metrics, for people and for machines.
const (
	metricsPage   = "../docs/metrics.md"
	dashboardFile = "../docs/grafana.json"
	alertsFile    = "../docs/alerts.yaml"
)

var update = flag.Bool("update", false, "write the table of docs/metrics.md anew")

// vocabulary is what a query can ask for: the values of every label of every metric.
type vocabulary map[string]map[string]map[string]bool

// families returns what a scrape holds, by name.
func families(t testing.TB, scraped string) map[string]*dto.MetricFamily {
	t.Helper()
	p := expfmt.NewTextParser(model.LegacyValidation)
	found, err := p.TextToMetricFamilies(strings.NewReader(scraped))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// add adds what a scrape holds. Prometheus itself adds job and instance, and up.
func (v vocabulary) add(t testing.TB, scraped string) {
	t.Helper()
	note := func(name string, pairs ...*dto.LabelPair) {
		if v[name] == nil {
			v[name] = map[string]map[string]bool{"job": {}, "instance": {}}
		}
		for _, pair := range pairs {
			if v[name][pair.GetName()] == nil {
				v[name][pair.GetName()] = make(map[string]bool)
			}
			v[name][pair.GetName()][pair.GetValue()] = true
		}
	}
	quantile := func(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }
	note("up")
	for name, family := range families(t, scraped) {
		for _, m := range family.GetMetric() {
			switch family.GetType() {
			case dto.MetricType_HISTOGRAM:
				note(name+"_bucket", append(slices.Clone(m.GetLabel()), quantile("le", ""))...)
			case dto.MetricType_SUMMARY:
				for _, q := range m.GetSummary().GetQuantile() {
					note(name, append(slices.Clone(m.GetLabel()), quantile("quantile", fmt.Sprint(q.GetQuantile())))...)
				}
			default:
				note(name, m.GetLabel()...)
				continue
			}
			note(name+"_sum", m.GetLabel()...)
			note(name+"_count", m.GetLabel()...)
		}
	}
}

// check returns what a query asks for that there is not, and the metrics and labels that
// it names.
func (v vocabulary) check(query string) (wrong []string, metrics, named map[string]bool) {
	metrics, named = make(map[string]bool), map[string]bool{"job": true, "instance": true}
	expr, err := parser.ParseExpr(query)
	if err != nil {
		return []string{err.Error()}, metrics, named
	}
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		metrics[selector.Name] = true
		of, known := v[selector.Name]
		if !known {
			bad("there is no metric %s", selector.Name)
		}
		for label := range of {
			named[label] = true
		}
		for _, m := range selector.LabelMatchers {
			values, known := of[m.Name]
			switch {
			case m.Name == labels.MetricName:
			case !known:
				bad("%s has no label %s", selector.Name, m.Name)
			case m.Name == "job" || m.Name == "instance": // Prometheus's
			default:
				for _, value := range strings.Split(m.Value, "|") { // a list is the only pattern in use
					if !values[value] {
						bad("%s of %s is never %q", m.Name, selector.Name, value)
					}
				}
			}
		}
		return nil
	})
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		var grouping []string
		switch n := node.(type) {
		case *parser.AggregateExpr:
			grouping = n.Grouping
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				grouping = slices.Concat(n.VectorMatching.MatchingLabels, n.VectorMatching.Include)
			}
		}
		for _, label := range grouping {
			if !named[label] {
				bad("nothing in it has the label %s", label)
			}
		}
		return nil
	})
	return wrong, metrics, named
}

func TestQueriesAreHeldAgainstWhatThereIs(t *testing.T) {
	v := make(vocabulary)
	v.add(t, "# TYPE a_total counter\na_total{result=\"x\"} 1\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n")
	for query, want := range map[string]string{
		`sum by (result, job) (rate(a_total{result="x", job="j"}[5m]))`: "",
		`histogram_quantile(0.9, sum by (le) (rate(h_bucket[5m])))`:     "",
		`a_total / on (job) up`:     "",
		`a_total{result=~"x|y"}`:    `result of a_total is never "y"`,
		`b_total`:                   "there is no metric b_total",
		`h`:                         "there is no metric h",
		`a_total{le="1"}`:           "a_total has no label le",
		`sum by (le) (a_total)`:     "nothing in it has the label le",
		`a_total / on (le) a_total`: "nothing in it has the label le",
		`rate(a_total)`:             "range vector",
		`sum(`:                      "unclosed",
	} {
		wrong, _, _ := v.check(query)
		if got := strings.Join(wrong, "; "); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
}

type panel struct {
	ID          int
	Type, Title string
	Datasource  struct{ UID string }
	GridPos     struct{ H, W, X, Y int }
	FieldConfig struct{ Defaults struct{ Unit string } }
	Targets     []struct{ RefID, Expr, LegendFormat string }
	Panels      []panel
}

// checkDashboard returns the metrics that the dashboard asks for.
func checkDashboard(t *testing.T, v vocabulary) (metrics map[string]bool) {
	metrics = make(map[string]bool)
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		UID, Title string
		Templating struct {
			List []struct {
				Name, Type string
				Query      any
			}
		}
		Panels []panel
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := make(map[string]string)
	for _, variable := range dashboard.Templating.List {
		variables[variable.Name] = variable.Type
	}
	if want := map[string]string{"datasource": "datasource", "job": "query", "instance": "query"}; !maps.Equal(variables, want) {
		t.Errorf("the variables are %v, want %v", variables, want)
	}
	ids, taken := make(map[int]bool), make(map[[2]int]string)
	queries := 0
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.ID == 0 || p.Title == "" {
			t.Errorf("panel %q has id %d, which is another's or none", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
					t.Errorf("panel %q lies over %q, or over the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Datasource.UID != "${datasource}" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("panel %q: datasource %q, unit %q, %d queries", p.Title, p.Datasource.UID, p.FieldConfig.Defaults.Unit, len(p.Targets))
		}
		for _, target := range p.Targets {
			queries++
			wrong, asked, named := v.check(strings.ReplaceAll(target.Expr, "$__rate_interval", "5m"))
			for _, what := range wrong {
				t.Errorf("panel %q: %s: %s", p.Title, target.Expr, what)
			}
			maps.Copy(metrics, asked)
			if selectors, filtered := strings.Count(target.Expr, "{"), strings.Count(target.Expr, `{job=~"$job", instance=~"$instance"`); selectors == 0 || selectors != filtered {
				t.Errorf("panel %q: %s does not follow the choice of job and instance", p.Title, target.Expr)
			}
			for _, label := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				if !named[label[1]] {
					t.Errorf("panel %q: the legend %q names a label that is not there", p.Title, target.LegendFormat)
				}
			}
		}
	}
	if queries < 50 {
		t.Errorf("only %d queries were read", queries)
	}
	return metrics
}

// checkAlerts returns the metrics that the alerts ask for.
func checkAlerts(t *testing.T, v vocabulary) (metrics map[string]bool) {
	metrics = make(map[string]bool)
	file, err := os.Open(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	decoder := yaml.NewDecoder(file)
	decoder.KnownFields(true)
	if err := decoder.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	told := make(map[string]bool) // those that have a heading
	for _, heading := range regexp.MustCompile(`(?m)^### (Ocnode\w+)$`).FindAllStringSubmatch(string(page), -1) {
		told[heading[1]] = true
	}
	alerts := make(map[string]bool)
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			if alerts[rule.Alert] || !regexp.MustCompile(`^Ocnode[A-Z]\w+$`).MatchString(rule.Alert) {
				t.Errorf("%q is no name for an alert, or there are two", rule.Alert)
			}
			alerts[rule.Alert] = true
			wrong, asked, _ := v.check(rule.Expr)
			for _, what := range wrong {
				t.Errorf("%s: %s", rule.Alert, what)
			}
			maps.Copy(metrics, asked)
			if rule.For != "" {
				if _, err := model.ParseDuration(rule.For); err != nil {
					t.Errorf("%s: %v", rule.Alert, err)
				}
			} else if !regexp.MustCompile(`(changes|increase)\(`).MatchString(rule.Expr) {
				t.Errorf("%s fires at the first blink: give it a for, or a range that is one", rule.Alert)
			}
			if severity := rule.Labels["severity"]; len(rule.Labels) != 1 || severity != "critical" && severity != "warning" {
				t.Errorf("%s: the labels are %v, want a severity, critical or warning", rule.Alert, rule.Labels)
			}
			if want := "https://github.com/opencloud/ocnode/blob/main/docs/metrics.md#" + strings.ToLower(rule.Alert); rule.Annotations["runbook_url"] != want || !told[rule.Alert] {
				t.Errorf("%s: the runbook is %q, want %q, and a heading there", rule.Alert, rule.Annotations["runbook_url"], want)
			}
			if len(rule.Annotations) != 3 || rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("%s: the annotations are %v, want summary, description and runbook_url", rule.Alert, rule.Annotations)
			}
			for _, text := range rule.Annotations {
				for _, label := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(text, -1) {
					if want := map[bool]string{true: "job", false: "instance"}[strings.Contains(rule.Expr, "by (job)")]; label[1] != want {
						t.Errorf("%s: %q names a label that its query does not keep", rule.Alert, text)
					}
				}
			}
		}
	}
	if !maps.Equal(alerts, told) {
		t.Errorf("%s tells of the alerts %v, and there are %v", metricsPage, slices.Sorted(maps.Keys(told)), slices.Sorted(maps.Keys(alerts)))
	}
	return metrics
}

// metricsTable returns the table of docs/metrics.md.
func metricsTable(native, indexer map[string]*dto.MetricFamily) string {
	all := maps.Clone(native)
	maps.Copy(all, indexer)
	var b strings.Builder
	b.WriteString("| metric | type | of | labels | meaning |\n| --- | --- | --- | --- | --- |\n")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !strings.HasPrefix(name, "ocnode_") {
			continue
		}
		family := all[name]
		_, ofNative := native[name]
		_, ofIndexer := indexer[name]
		of := "native"
		switch {
		case ofNative && ofIndexer:
			of = "every node"
		case ofIndexer:
			of = "indexer"
		case strings.HasPrefix(name, "ocnode_dht_"):
			of = "dht"
		case strings.HasPrefix(name, "ocnode_gossip_"):
			of = "gossip"
		}
		values := make(map[string][]string)
		for _, m := range family.GetMetric() {
			for _, pair := range m.GetLabel() {
				values[pair.GetName()] = append(values[pair.GetName()], pair.GetValue())
			}
		}
		var told []string
		for _, label := range slices.Sorted(maps.Keys(values)) {
			if name == "ocnode_build_info" { // its values are the build's
				told = append(told, "`"+label+"`")
				continue
			}
			slices.Sort(values[label])
			told = append(told, fmt.Sprintf("`%s`: `%s`", label, strings.Join(slices.Compact(values[label]), "`, `")))
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", name, strings.ToLower(family.GetType().String()), of, strings.Join(told, "; "), family.GetHelp())
	}
	return b.String()
}

// checkPage holds the table of docs/metrics.md against the metrics, or writes it anew.
func checkPage(t *testing.T, table string) {
	const begin, end = "<!-- metrics: written by go test ./modules -run TestMetricsOfANetwork -update -->\n", "<!-- /metrics -->"
	page, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(page), begin)
	got, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the table, between %q and %q", metricsPage, begin, end)
	}
	if *update {
		if err := os.WriteFile(metricsPage, []byte(before+begin+table+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != table {
		t.Errorf("the table of %s is another; write it anew with -update:\n%s", metricsPage, table)
	}
}
