package porttest

import (
	_ "embed"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/opencloud/ocnode/ports"
)

//go:embed testdata/frames.tsv
var framesTSV string

// Frame is a case of the contract: an indexer's bytes and their answer.
type Frame struct {
	Name string
	// Want is the code of the refusal, or "" if the answer must be a lease.
	Want ports.Code
	// Bytes are written verbatim, followed by the end of the stream.
	Bytes []byte
}

var letters = regexp.MustCompile(`\{\{(\d+) x (\w)\}\}`)

// Frames returns the frames of the contract as the peer self would send them. other is another
// valid PeerID, and selfCID is self in the text form of a CID.
func Frames(t testing.TB, self, other ports.PeerID, selfCID string) []Frame {
	t.Helper()
	placeholders := strings.NewReplacer(
		"{{SELF}}", string(self), "{{OTHER}}", string(other), "{{SELF_CID}}", selfCID, "{{BYTE_FF}}", "\xff")
	var frames []Frame
	for line := range strings.Lines(framesTSV) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		var text string
		if len(fields) != 3 || json.Unmarshal([]byte(fields[2]), &text) != nil {
			t.Fatalf("frames.tsv: want name, answer and a JSON string, have %q", line)
		}
		text = letters.ReplaceAllStringFunc(text, func(s string) string {
			m := letters.FindStringSubmatch(s)
			n, _ := strconv.Atoi(m[1])
			return strings.Repeat(m[2], n)
		})
		want := ports.Code(fields[1])
		if want == "OK" {
			want = ""
		}
		frames = append(frames, Frame{fields[0], want, []byte(placeholders.Replace(text))})
	}
	return frames
}
