//go:build unix

package cmd

import (
	"bufio"
	"regexp"
	"testing"

	"github.com/creack/pty"

	"github.com/opencloud/ocnode/adapters/httpapi"
	"github.com/opencloud/ocnode/ports"
)

func TestATerminalGetsAWatchShortAndColored(t *testing.T) {
	const id = "12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF"
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	lines := bufio.NewReader(master)
	l := listed(id)
	l.Native = id
	for _, tc := range []struct {
		p     *program
		kind  ports.ChangeKind
		drawn string
	}{
		{&program{out: slave}, ports.ChangeJoined, `\x1b\[32mjoined\x1b\[m  `},
		{&program{out: slave}, ports.ChangeSnapshot, `snapshot`},
		{&program{out: slave, noColor: true}, ports.ChangeJoined, `joined  `},
	} {
		if err := tc.p.tell(httpapi.Event{Kind: string(tc.kind), Change: ports.Change{Kind: tc.kind, Listed: l}}); err != nil {
			t.Fatal(err)
		}
		line, err := lines.ReadString('\n')
		want := `^\d\d:\d\d:\d\d   ` + tc.drawn + `   12D3Koo…TjYWaF   /ip4/10\.0\.0\.1/tcp/1   12D3Koo…TjYWaF\r\n$`
		if err != nil || !regexp.MustCompile(want).MatchString(line) {
			t.Errorf("%s is %q, %v", tc.kind, line, err)
		}
	}
}
