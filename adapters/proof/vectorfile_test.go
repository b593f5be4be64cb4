package proof_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

// vectorFile is where programs have the vectors from.
const vectorFile = "../../docs/vectors.json"

// vectorSet is the content of that file.
type vectorSet struct {
	About   string
	Key     vectorKey
	Chain   vectorChain
	Records []vectorRecord
	Ticks   []vectorTick
	Checks  []vectorCheck
}

type vectorKey struct{ Seed, PublicKey, PeerID string }

// vectorChain is the whole chain. Its first link is the Anchor, and its last link is the secret.
type vectorChain struct {
	Secret string
	Links  []string
}

// vectorRecord is a record, and all that went into it. Start is in hexadecimal, since not every
// reader of JSON keeps 64 bits.
type vectorRecord struct {
	Name             string
	PeerID           string
	Addrs            []string
	Meta             map[string]string
	Seq              int64
	Start            string
	Interval, TTL    int64 // milliseconds
	Anchor           string
	Payload, Record  string
	ExpiresAt, Until time.Time // of step 0, and of the record
}

// vectorTick is a step of the record with that name: when it is due, and its entry's deadline.
type vectorTick struct {
	Record         string
	Tick           wireTick
	Due, ExpiresAt time.Time
}

type wireTick struct {
	Seq  int64
	Step uint32
	Link string
}

// vectorCheck is an entry, and the fault of its proof for a native that stores the entry at Now.
type vectorCheck struct {
	Name   string
	Now    time.Time
	Record string // in base64
	Tick   *wireTick
	Fault  ports.Fault // "" for a sound proof
}

func wireTickOf(w ports.Tick) wireTick {
	return wireTick{w.Seq, w.Step, base64.StdEncoding.EncodeToString(w.Link[:])}
}

// madeVectors returns the vectors as the code makes them.
func madeVectors(t *testing.T) vectorSet {
	key, links := keyOf(t, 0), chain()
	b64 := base64.StdEncoding.EncodeToString
	raw, err := key.GetPublic().Raw()
	if err != nil {
		t.Fatal(err)
	}
	v := vectorSet{
		About: "Vectors of docs/protocol.md, section Proofs. Bytes of keys, chains and payloads are in hexadecimal; records and links are in base64. Interval and TTL are milliseconds.",
		Key:   vectorKey{hex.EncodeToString(from(0)), hex.EncodeToString(raw), string(idOf(t, key))},
		Chain: vectorChain{Secret: hex.EncodeToString(from(0x20))},
	}
	for _, link := range links {
		v.Chain.Links = append(v.Chain.Links, b64(link[:]))
	}

	claim := claimOf(t, key)
	with := func(change func(*ports.Claim)) ports.Claim {
		c := claim
		change(&c)
		return c
	}
	records := []struct {
		name  string
		claim ports.Claim
	}{
		{"record", claim},
		{"an empty name in the metadata", with(func(c *ports.Claim) { c.Meta = map[string]string{"": "unnamed", "zone": "eu-1"} })},
		{"an empty value in the metadata", with(func(c *ports.Claim) { c.Meta = map[string]string{"": "", "zone": ""} })},
		{"one address and no metadata", with(func(c *ports.Claim) { c.Addrs, c.Meta = c.Addrs[:1], nil })},
		{"no chain", with(func(c *ports.Claim) { c.Interval, c.Anchor = 0, ports.Link{} })},
		{"leave", ports.Claim{PeerID: claim.PeerID, Seq: issued.Add(4 * time.Minute).UnixMilli(), Start: claim.Start, TTL: claim.TTL}},
	}
	sealed := map[string]string{}
	for _, r := range records {
		c := r.claim
		sealed[r.name] = b64(sign(t, key, c))
		v.Records = append(v.Records, vectorRecord{
			Name: r.name, PeerID: string(c.PeerID), Addrs: c.Addrs, Meta: c.Meta, Seq: c.Seq, Start: fmt.Sprintf("%016x", c.Start),
			Interval: c.Interval.Milliseconds(), TTL: c.TTL.Milliseconds(), Anchor: hex.EncodeToString(c.Anchor[:]),
			Payload: hex.EncodeToString(payloadOf(t, c)), Record: sealed[r.name], ExpiresAt: c.ExpiresAt(0), Until: c.Ends(),
		})
	}
	tick := func(step uint32) ports.Tick { return ports.Tick{Seq: claim.Seq, Step: step, Link: links[step]} }
	for _, step := range []uint32{0, 1, 2, 3, 4, steps - 1, steps} {
		v.Ticks = append(v.Ticks, vectorTick{"record", wireTickOf(tick(step)), claim.Due(step), claim.ExpiresAt(step)})
	}

	check := func(name string, now time.Time, record string, tick *ports.Tick, fault ports.Fault) {
		c := vectorCheck{Name: name, Now: now.UTC(), Record: record, Fault: fault}
		if tick != nil {
			w := wireTickOf(*tick)
			c.Tick = &w
		}
		v.Checks = append(v.Checks, c)
	}
	for step := range uint32(5) { // an indexer beats when its steps are due
		w := tick(step)
		check(fmt.Sprintf("on the grid, step %d", step), claim.Due(step), sealed["record"], &w, "")
	}
	for _, r := range records[1:] {
		check(r.name, r.claim.Issued(), sealed[r.name], nil, "")
	}
	for _, step := range []uint32{0, 5, steps - 1} {
		w, first := tick(step), claim.Due(step).Add(-ports.ClockAllowance)
		check(fmt.Sprintf("step %d, a millisecond too early", step), first.Add(-time.Millisecond), sealed["record"], &w, ports.FaultFuture)
		check(fmt.Sprintf("step %d, as early as it may come", step), first, sealed["record"], &w, "")
	}
	last := tick(steps - 1)
	check("the last step at once", claim.Issued(), sealed["record"], &last, ports.FaultFuture)
	until := claim.Ends().Add(ports.ClockAllowance)
	check("as late as it may be stored", until.Add(-time.Millisecond), sealed["record"], &last, "")
	check("a millisecond too late", until, sealed["record"], &last, ports.FaultEnded)

	texts, _, faults := vectors(t)
	third := tick(3)
	for _, name := range []string{
		"a byte behind the envelope", "fields in another order", "a field 2", "another payload type",
		"signed by another", "signed for another domain", "the link of step 4 at step 3",
	} {
		if faults[name] != ports.FaultTick {
			check(name, claim.Due(3), texts[name], &third, faults[name])
			continue
		}
		wrong := third
		wrong.Link = links[4]
		check(name, claim.Due(3), sealed["record"], &wrong, faults[name])
	}
	return v
}

func TestTheFileOfVectors(t *testing.T) {
	want, err := json.MarshalIndent(madeVectors(t), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *updateVectors {
		if err := os.WriteFile(vectorFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Errorf("it is not what the code makes; write it with go test ./adapters/proof -run Vectors -update-vectors")
	}

	// From here on all is read from the file, so that it cannot be wrong in the same way.
	var v vectorSet
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	for _, r := range v.Records {
		if again := base64.StdEncoding.EncodeToString(byThePage(t, r.Payload)); again != r.Record {
			t.Errorf("%s: as the page says it, the record is\n%s", r.Name, again)
		}
	}
	for _, c := range v.Checks {
		t.Run(c.Name, func(t *testing.T) {
			if got := c.fault(t, v.Key.PeerID); got != c.Fault {
				t.Errorf("the fault is %q, want %q", got, c.Fault)
			}
		})
	}
}

// fault returns the fault of the entry of c, by the rules of a node whose clock shows c.Now.
func (c vectorCheck) fault(t *testing.T, id string) ports.Fault {
	t.Helper()
	p := &ports.Proof{}
	var err error
	if p.Record, err = base64.StdEncoding.DecodeString(c.Record); err != nil {
		t.Fatal(err)
	}
	if c.Tick != nil {
		link, err := base64.StdEncoding.DecodeString(c.Tick.Link)
		if err != nil {
			t.Fatal(err)
		}
		p.Tick = ports.Tick{Seq: c.Tick.Seq, Step: c.Tick.Step, Link: ports.Link(link)}
	}
	rules := domain.Rules{
		Policy: domain.DefaultTTLPolicy(), Proofs: proof.NewVerifier(), CheckAddr: func(ports.PeerID, string) error { return nil },
		Clock: domain.NewClock(func() time.Time { return c.Now }, func() time.Duration { return 0 }),
	}
	e := ports.Entry{PeerID: ports.PeerID(id), Proof: p}
	if claim, err := rules.Proofs.Read(p.Record); err == nil { // the members of the entry are those of its record
		e = (&ports.Proof{Tick: p.Tick, Claim: claim}).Entry()
		e.Proof = p
	}
	if err = rules.Acceptable(&e); err == nil {
		return ""
	}
	return faultOf(t, err)
}
