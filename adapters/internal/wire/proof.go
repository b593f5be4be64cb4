package wire

import (
	"encoding/base64"
	"strconv"

	"github.com/opencloud/ocnode/ports"
)

// proof is what may stand beside an entry to check it by. JSON has bytes as base64.
type proof struct {
	Record []byte `json:",omitzero"`
	Tick   *tick  `json:",omitempty"`
}

type tick struct {
	Seq  int64
	Step uint32
	Link ports.Link
}

var proofNames = []string{"Record", "Tick"}

// proof returns the port's noun, unread; nil if there is none. A record alone is at step 0,
// whose link it has itself; a tick that says nothing is none.
func (w *proof) proof() *ports.Proof {
	p := ports.Proof{Record: w.Record}
	if w.Tick != nil {
		p.Tick = ports.Tick(*w.Tick)
	}
	if p.Record == nil && p.Tick == (ports.Tick{}) {
		return nil
	}
	return &p
}

func proofOf(p *ports.Proof) (w proof) {
	if p != nil {
		w.Record = p.Record
		if p.Tick != (ports.Tick{}) {
			w.Tick = new(tick(p.Tick))
		}
	}
	return w
}

// appendProof appends the members of p, each with a comma before it.
func appendProof(b []byte, p *ports.Proof) []byte {
	if p == nil {
		return b
	}
	if p.Record != nil {
		b = append(base64.StdEncoding.AppendEncode(append(b, `,"Record":"`...), p.Record), '"')
	}
	if p.Tick == (ports.Tick{}) {
		return b
	}
	b = strconv.AppendInt(append(b, `,"Tick":{"Seq":`...), p.Tick.Seq, 10)
	b = strconv.AppendUint(append(b, `,"Step":`...), uint64(p.Tick.Step), 10)
	b = base64.StdEncoding.AppendEncode(append(b, `,"Link":"`...), p.Tick.Link[:])
	return append(b, `"}`...)
}
