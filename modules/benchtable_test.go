package modules_test

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

var updateBenchmarks = flag.Bool("update-benchmarks", false, "have BenchmarkTable write its figures into docs/benchmarks.md")

// benchmarksDoc holds the figures between two marks of its own.
const benchmarksDoc = "../docs/benchmarks.md"

const figuresBegin, figuresEnd = "<!-- figures: make bench writes what follows -->\n", "<!-- figures end -->\n"

// BenchmarkTable measures what the contract bounds and prints it as one table, each
// figure beside its bound: `make bench`. It takes a quarter of an hour with -benchtime 1s, and longer with
// another.
func BenchmarkTable(b *testing.B) {
	began := time.Now()
	scale := benchScale(b)
	t := &table{head: benchHead()}
	for _, part := range []struct {
		name    string
		measure func(*testing.B, *table, float64)
	}{{"table", tableOfLiveTable}, {"registration", tableOfRegistration}, {"signed", tableOfSigned}, {"takeover", tableOfTakeover}, {"beats", tableOfBeats}, {"short", tableOfShort}, {"watches", tableOfWatches}, {"follow", tableOfFollow}, {"puts", tableOfPuts}, {"crowd", tableOfCrowd}, {"whole", tableOfWhole}, {"large", tableOfLarge}} {
		measured := false
		b.Run(part.name, func(b *testing.B) {
			if !measured { // a short one is run again
				measured = true
				part.measure(b, t, scale)
			}
		})
	}
	if len(t.parts) == 0 {
		return
	}
	t.note("measured in %v", time.Since(began).Round(time.Second))
	t.sum()
	fmt.Printf("\n%s\n", t.text())
	if *updateBenchmarks && !b.Failed() {
		if err := writeFigures(t.markdown()); err != nil {
			b.Fatal(err)
		}
	}
}

// benchScale is -benchtime in seconds.
func benchScale(b *testing.B) float64 {
	b.Helper()
	per, err := time.ParseDuration(flag.Lookup("test.benchtime").Value.String())
	if err != nil || per <= 0 {
		b.Fatalf("-benchtime must be a duration here, such as 2s: %v", err)
	}
	return per.Seconds()
}

// scaled is n at -benchtime 1s, and never less than least.
func scaled(n int, scale float64, least int) int { return max(least, int(float64(n)*scale)) }

// table is what was measured, in parts.
type table struct {
	head  []string
	parts []tablePart
}

type tablePart struct {
	title string
	rows  []tableRow
	notes []string
}

type tableRow struct {
	what, measured, bound, verdict string
	place                          int // among the bounds of a large network, from 1 on
}

func (t *table) part(format string, args ...any) {
	t.parts = append(t.parts, tablePart{title: fmt.Sprintf(format, args...)})
}

func (t *table) last() *tablePart { return &t.parts[len(t.parts)-1] }

// row adds a figure that nothing bounds; beside is what it is to be compared with.
func (t *table) row(what, measured, beside string) {
	t.last().rows = append(t.last().rows, tableRow{what: what, measured: measured, verdict: beside})
}

// atMost adds a figure that must not exceed its bound.
func (t *table) atMost(what string, value, bound float64, show func(float64) string) {
	verdict := "within"
	switch {
	case value < 0: // a difference of two figures that is smaller than what they vary by
		t.last().rows = append(t.last().rows, tableRow{what: what, measured: show(value), bound: "≤ " + show(bound), verdict: "lost in the noise"})
		return
	case value > bound:
		verdict = "OVER"
	}
	ratio := value / bound
	if bound == 0 {
		ratio = value
	}
	t.bounded(what, show(value), "≤ "+show(bound), ratio, verdict)
}

// atLeast adds a figure that must reach its bound.
func (t *table) atLeast(what string, value, bound float64, show func(float64) string) {
	verdict := "within"
	if value < bound {
		verdict = "SHORT"
	}
	t.bounded(what, show(value), "≥ "+show(bound), value/bound, verdict)
}

func (t *table) bounded(what, measured, bound string, ratio float64, verdict string) {
	t.last().rows = append(t.last().rows, tableRow{what: what, measured: measured, bound: bound, verdict: fmt.Sprintf("%s (%.2f of it)", verdict, ratio)})
}

// ofScale has the last rows, so many of them, stand among the bounds of a large network too. They are told
// there in the order of their places.
func (t *table) ofScale(place, rows int) {
	all := t.last().rows
	for i := range all[len(all)-rows:] {
		all[len(all)-rows+i].place = place
	}
}

// sum makes the first part: the bounds of a large network, each with its figure.
func (t *table) sum() {
	first := tablePart{title: "The bounds of a large network, from the parts below"}
	for _, p := range t.parts {
		for _, r := range p.rows {
			if r.place > 0 {
				first.rows = append(first.rows, r)
			}
		}
	}
	slices.SortStableFunc(first.rows, func(x, y tableRow) int { return x.place - y.place })
	if len(first.rows) > 0 {
		t.parts = slices.Insert(t.parts, 0, first)
	}
}

// note adds a sentence below the rows.
func (t *table) note(format string, args ...any) {
	t.last().notes = append(t.last().notes, fmt.Sprintf(format, args...))
}

func (t *table) text() string {
	var out strings.Builder
	for _, line := range t.head {
		fmt.Fprintln(&out, line)
	}
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "\nWHAT\tMEASURED\tBOUND\tVERDICT\n")
	for _, p := range t.parts {
		fmt.Fprintf(w, "\n%s\t\t\t\n", p.title)
		for _, r := range p.rows {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", r.what, r.measured, r.bound, r.verdict)
		}
		if len(p.notes) > 0 {
			_ = w.Flush() // a note is no column
		}
		for _, note := range p.notes {
			fmt.Fprintf(&out, "  · %s\n", note)
		}
	}
	_ = w.Flush()
	return out.String()
}

func (t *table) markdown() string {
	var out strings.Builder
	for _, line := range t.head {
		fmt.Fprintf(&out, "%s  \n", line)
	}
	for _, p := range t.parts {
		fmt.Fprintf(&out, "\n### %s\n\n| what | measured | bound | verdict |\n| --- | --- | --- | --- |\n", p.title)
		for _, r := range p.rows {
			fmt.Fprintf(&out, "| %s | %s | %s | %s |\n", r.what, r.measured, r.bound, r.verdict)
		}
		if len(p.notes) > 0 {
			fmt.Fprintln(&out)
		}
		for _, note := range p.notes {
			fmt.Fprintf(&out, "- %s\n", note)
		}
	}
	return out.String()
}

func writeFigures(figures string) error {
	page, err := os.ReadFile(benchmarksDoc)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(page), figuresBegin)
	_, after, ends := strings.Cut(rest, figuresEnd)
	if !begins || !ends {
		return fmt.Errorf("%s: the marks around the figures are missing: %q and %q", benchmarksDoc, figuresBegin, figuresEnd)
	}
	return os.WriteFile(benchmarksDoc, []byte(before+figuresBegin+figures+figuresEnd+after), 0o644)
}

// benchHead says what was measured where.
func benchHead() []string {
	commit := "unknown commit"
	if out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*").Output(); err == nil {
		commit = strings.TrimSpace(string(out))
	}
	head := []string{
		fmt.Sprintf("%s, commit %s, %s", time.Now().UTC().Format("2006-01-02 15:04 UTC"), commit, runtime.Version()),
		fmt.Sprintf("%s, %d cores (GOMAXPROCS %d), %s/%s", cpuModel(), runtime.NumCPU(), runtime.GOMAXPROCS(0), runtime.GOOS, runtime.GOARCH),
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		head[1] += ", load average at the start " + strings.Fields(string(load))[0]
	}
	return head
}

func cpuModel() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown CPU"
}

// tableOfLiveTable runs the domain's own benchmarks, where nothing else runs beside them.
func tableOfLiveTable(b *testing.B, t *table, scale float64) {
	t.part("The live table with a million entries")
	seconds := func(s float64) string { return fmt.Sprintf("%.4gs", s) }
	// A whole round of the outbox, see there.
	heartbeat := goBench(b, "^BenchmarkHeartbeat$", "1", seconds(float64(scaled(10, scale, 10))))["Heartbeat"]
	others := goBench(b, "^Benchmark(PageOf1000|SweepOfNothing|SweepExpiring10000)$", "1", seconds(scale))
	held := goBench(b, "^BenchmarkHeartbeatBesidePagesAndSweeps$", "2", fmt.Sprintf("%dx", scaled(1, scale, 1)))["HeartbeatBesidePagesAndSweeps"]

	t.atLeast("heartbeats a second of one core's CPU, a million entries, outbox and observer attached", heartbeat["heartbeats/cpu-s"], 2e6, thousands)
	t.ofScale(8, 1)
	followed := goBench(b, "^BenchmarkHeartbeatFollowed$", "1", seconds(float64(scaled(3, scale, 3))))["HeartbeatFollowed"]
	t.atLeast("the same at a native that all others follow", followed["heartbeats/cpu-s"], 2e6, thousands)
	t.row("memory a plain entry, with what the outbox holds of a million", unit("B", 0)(heartbeat["B/entry"]), "")
	tableOfBytes(b, t)
	t.atMost("sweep that finds nothing", others["SweepOfNothing"]["ns/op"]/1e3, 100, unit("µs", 1))
	t.row("sweep that expires 10,000", unit("ms", 1)(others["SweepExpiring10000"]["ns/op"]/1e6), "")
	t.row("page of 1,000", unit("ms", 2)(others["PageOf1000"]["ns/op"]/1e6), "")
	t.atMost("heartbeat held up beside pages and sweeps, p99.9", held["p99.9-µs"], 1000, unit("µs", 0))
	t.row("the same, the longest", unit("µs", 0)(held["max-µs"]), "without pages and sweeps: "+unit("µs", 0)(held["alone-max-µs"]))
	t.atMost("a sweep holds a shard, p99", held["batch-p99-µs"], 1000, unit("µs", 0))
	t.row("the same, the longest", unit("µs", 0)(held["batch-max-µs"]), "")
	t.note("Held up by: half of the million expire, the other half are looked at again, and pages of 1,000 are read. The longest includes what the scheduler and other processes take, so it stands beside the longest of heartbeats that run alone.")
	t.note("The outbox puts each entry every 10 s by the clock, so other processes that slow this one down make it put more often for each heartbeat: a busy machine's figure is too low.")
}

// tableOfBytes says what an entry takes, of a million plain ones and of others, and what the collector has
// to do with them.
func tableOfBytes(b *testing.B, t *table) {
	kinds := goBench(b, "^BenchmarkTableBytes$", "1", "1x")
	for _, k := range []struct {
		name, what string
		bound      float64
	}{
		{"plain", "memory a plain entry of a million, with its index, order and wheel", 165},
		{"tick", "memory a signed entry, with its newest tick", 220},
		{"signed", "memory a signed entry, with its whole proof", 320},
		{"labels", "memory a plain entry with two labels", 0},
		{"told", "memory a plain entry with the leases of two other natives", 0},
	} {
		bytes, ok := kinds["TableBytes/"+k.name]["B/entry"]
		switch {
		case !ok:
		case k.bound == 0:
			t.row(k.what, unit("B", 0)(bytes), "")
		default:
			t.atMost(k.what, bytes, k.bound, unit("B", 0))
			t.ofScale(6, 1)
		}
	}
	for _, name := range []string{"plain", "signed", "watched"} {
		if k, ok := kinds["TableBytes/"+name]; ok {
			t.atMost("full collection with many "+name+" entries: pause", k["pause-µs"], 1000, unit("µs", 0))
			t.atMost("the same, its CPU to mark", k["mark-ms"], 20, unit("ms", 1))
			t.ofScale(7, 2)
		}
	}
}

func thousands(v float64) string {
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func unit(name string, decimals int) func(float64) string {
	return func(v float64) string { return strconv.FormatFloat(v, 'f', decimals, 64) + " " + name }
}

// goBench runs benchmarks of the domain in a process of their own, on so many cores,
// and returns each one's figures by unit.
func goBench(b *testing.B, pattern, cores, benchtime string) map[string]map[string]float64 {
	b.Helper()
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", pattern, "-cpu", cores, "-benchtime", benchtime, "-timeout", "1h", "../domain")
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	figures := make(map[string]map[string]float64)
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		fields := strings.Fields(lines.Text()) // BenchmarkName-2 N, then value unit, value unit, …
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(fields[0], "Benchmark"), "-")
		figures[name] = make(map[string]float64)
		for pair := range slices.Chunk(fields[2:], 2) {
			if figures[name][pair[1]], err = strconv.ParseFloat(pair[0], 64); err != nil {
				b.Fatalf("%s: %q: %v", cmd, lines.Text(), err)
			}
		}
	}
	if len(figures) == 0 {
		b.Fatalf("%s: measured nothing\n%s", cmd, out)
	}
	return figures
}
