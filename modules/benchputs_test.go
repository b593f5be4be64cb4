package modules_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
)

var seedLine = regexp.MustCompile(`seed: (\d+) samples, (\d+) missing, (\d+) puts, (\d+) elsewhere`)

// tableOfPuts says what a native of the seed among others gets of the DHT.
func tableOfPuts(b *testing.B, t *table, _ float64) {
	t.part("The DHT with one native of the seed among eight, three minutes: simulated network")
	cmd := exec.Command(os.Args[0], "-test.run=^TestSimPutsGoToTheSeedsNativeAlone$", "-test.v", "-seed=3")
	out, err := cmd.CombinedOutput()
	said := seedLine.FindSubmatch(out)
	if err != nil || said == nil {
		b.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	var n [4]float64
	for i := range n {
		if n[i], err = strconv.ParseFloat(string(said[i+1]), 64); err != nil {
			b.Fatal(err)
		}
	}
	t.atMost(fmt.Sprintf("one native of the seed among eight: an indexer missing at it, of %s samples", thousands(n[0])), n[1], 0, thousands)
	t.ofScale(12, 1)
	t.row("puts to it", thousands(n[2]), "")
	t.atMost("puts to the seven others, which follow each other", n[3], 0, thousands)
	t.ofScale(12, 1)
}
