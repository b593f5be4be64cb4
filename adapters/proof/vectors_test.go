package proof_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/ports"
)

var updateVectors = flag.Bool("update-vectors", false, "write the vectors into docs/protocol.md")

// protocolPage is where other implementations have the vectors from.
const protocolPage = "../../docs/protocol.md"

// block is a vector on that page, or a frame.
var block = regexp.MustCompile("<!-- (vector|frame): (.+) -->\n```(?:text|json)\n(.*)\n```\n")

// vectors returns what stands on the page, and the frames that are made of it.
func vectors(t *testing.T) (texts, frames map[string]string, faults map[string]ports.Fault) {
	indexer, native := keyOf(t, 0), keyOf(t, 0x64)
	c, chain := claimOf(t, indexer), chain()
	payload, record := payloadOf(t, c), sign(t, indexer, c)
	tick := func(step uint32) ports.Tick { return ports.Tick{Seq: c.Seq, Step: step, Link: chain[step]} }

	leave := ports.Claim{PeerID: c.PeerID, Seq: issued.Add(4 * time.Minute).UnixMilli(), Start: c.Start, TTL: c.TTL}

	fields := split(t, payload)
	fields[0], fields[1] = fields[1], fields[0]
	b64 := base64.StdEncoding.EncodeToString
	jsonOf := func(tick ports.Tick) string {
		return fmt.Sprintf(`{"Seq":%d,"Step":%d,"Link":"%s"}`, tick.Seq, tick.Step, b64(tick.Link[:]))
	}
	wrong := tick(3)
	wrong.Link = chain[4]
	texts = map[string]string{
		"indexer": string(c.PeerID), "secret": hex.EncodeToString(from(0x20)), "anchor": hex.EncodeToString(c.Anchor[:]),
		"payload": hex.EncodeToString(payload), "record": b64(record),
		"tick 1": jsonOf(tick(1)), "tick 2": jsonOf(tick(2)), "tick 3": jsonOf(tick(3)),
		"leave": b64(sign(t, indexer, leave)),

		"a byte behind the envelope":   b64(append(bytes.Clone(record), 0)),
		"fields in another order":      b64(seal(t, indexer, join(fields))),
		"a field 2":                    b64(seal(t, indexer, with(t, payload, 2, text(2, string(split(t, payload)[0].raw[2:]))))),
		"another payload type":         b64(sealAs(t, indexer, sealed{proof.Domain, "/ocnode/record/2", payload})),
		"signed by another":            b64(sign(t, native, c)),
		"signed for another domain":    b64(sealAs(t, indexer, sealed{"libp2p-peer-record", proof.PayloadType, payload})),
		"the link of step 4 at step 3": jsonOf(wrong),
	}
	faults = map[string]ports.Fault{
		"a byte behind the envelope": ports.FaultEnvelope, "fields in another order": ports.FaultPayload,
		"a field 2": ports.FaultPayload, "another payload type": ports.FaultType,
		"signed by another": ports.FaultSigner, "signed for another domain": ports.FaultSignature, "the link of step 4 at step 3": ports.FaultTick,
	}

	frame := func(b []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return string(bytes.TrimSuffix(b, []byte("\n")))
	}
	third := &ports.Proof{Record: record, Tick: tick(3), Claim: &c}
	entry := third.Entry()
	entry.Native, entry.SeenAt = idOf(t, native), issued.Add(3*c.Interval+250*time.Millisecond)
	left := (&ports.Proof{Record: sign(t, indexer, leave), Tick: ports.Tick{Seq: leave.Seq}, Claim: &leave}).Entry()
	listed := ports.Listed{Entry: entry, State: ports.StateLive, Source: ports.SourceOwn, Remaining: 65750 * time.Millisecond}
	listed.Addrs, listed.Meta, listed.SeenAt, listed.Proof = nil, nil, time.Time{}, &ports.Proof{Tick: tick(3)}
	var batch []byte
	_, err := wire.WriteBatch(nil, &ports.Batch{
		Now: issued.Add(3*c.Interval + 250*time.Millisecond), Live: 1, Cursor: "M5XG64TTMV.121",
		Changes: []ports.Change{{Kind: ports.ChangeRenewed, Listed: listed}},
	}, issued, func(frame []byte) error { batch = bytes.Clone(frame); return nil })
	frames = map[string]string{
		"registration with its record":    frame(wire.EncodeRegistration(ports.Registration{PeerID: c.PeerID, Addr: c.Addrs[0], Proof: &ports.Proof{Record: record, Tick: tick(0)}})),
		"heartbeat with its tick":         frame(wire.EncodeRegistration(ports.Registration{PeerID: c.PeerID, Addr: c.Addrs[0], Proof: &ports.Proof{Tick: tick(1)}})),
		"leave with its record":           frame(wire.EncodeLeave(c.PeerID, sign(t, indexer, leave))),
		"value with its proof":            frame(wire.EncodeEntry(entry)),
		"leave with its proof as a value": frame(wire.EncodeEntry(left)),
		"renewal with its tick":           frame(batch, err),
	}
	return texts, frames, faults
}

func TestTheVectorsOfTheProtocolsPage(t *testing.T) {
	page, err := os.ReadFile(protocolPage)
	if err != nil {
		t.Fatal(err)
	}
	texts, frames, faults := vectors(t)
	found := map[string]bool{}
	updated := block.ReplaceAllFunc(page, func(b []byte) []byte {
		parts := block.FindSubmatch(b)
		kind, name, text := string(parts[1]), string(parts[2]), string(parts[3])
		want, known := texts[name]
		if kind == "frame" {
			if want, known = frames[name]; !known {
				return b // one that the codec's tests read
			}
		}
		if !known || found[name] {
			t.Errorf("the vector %q is not known here, or stands twice", name)
			return b
		}
		if found[name] = true; text != want && !*updateVectors {
			t.Errorf("%s: on the page it is\n%s\nand should be\n%s", name, text, want)
		}
		return bytes.Replace(b, []byte("\n"+text+"\n"), []byte("\n"+want+"\n"), 1)
	})
	for _, of := range []map[string]string{texts, frames} {
		for name := range of {
			if !found[name] {
				t.Errorf("the page has no vector %q", name)
			}
		}
	}
	if *updateVectors {
		if err := os.WriteFile(protocolPage, updated, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}

	// What the page has is what is read, so that it cannot be wrong in the same way.
	read := map[string]string{}
	for _, b := range block.FindAllSubmatch(page, -1) {
		read[string(b[2])] = string(b[3])
	}
	bytesOf := func(name string) []byte {
		b, err := base64.StdEncoding.DecodeString(read[name])
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return b
	}
	tickOf := func(name string) (tick struct {
		Seq  int64
		Step uint32
		Link []byte
	}) {
		if err := json.Unmarshal([]byte(read[name]), &tick); err != nil || len(tick.Link) != 32 {
			t.Fatalf("%s: %v", name, err)
		}
		return tick
	}
	verify := func(record []byte, tickName string) error {
		tick := ports.Tick{Seq: issued.UnixMilli(), Link: chain()[0]}
		if tickName != "" {
			of := tickOf(tickName)
			tick = ports.Tick{Seq: of.Seq, Step: of.Step, Link: ports.Link(of.Link)}
		}
		_, err := proof.NewVerifier().Verify(record, tick)
		return err
	}
	if again := byThePage(t, read["payload"]); !bytes.Equal(again, bytesOf("record")) {
		t.Errorf("as the page says it, the record is\n%s", base64.StdEncoding.EncodeToString(again))
	}
	for step := 1; step <= 3; step++ {
		if err := verify(bytesOf("record"), fmt.Sprint("tick ", step)); err != nil {
			t.Error(err)
		}
	}
	for name, tick := range map[string]ports.Tick{"leave": {Seq: issued.Add(4 * time.Minute).UnixMilli()}} {
		if _, err := proof.NewVerifier().Verify(bytesOf(name), tick); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range faults {
		record, tick := []byte(nil), ""
		if want == ports.FaultTick {
			record, tick = bytesOf("record"), name
		} else {
			record = bytesOf(name)
		}
		if err := verify(record, tick); faultOf(t, err) != want {
			t.Errorf("%s: %v, want the fault %s", name, err, want)
		}
		row := regexp.MustCompile("(?m)^\\| `" + string(want) + "` \\| " + name + " \\|$")
		if !row.Match(page) {
			t.Errorf("no row of the page says that %s is the fault %s", name, want)
		}
	}
	for _, fault := range ports.Faults() {
		if !bytes.Contains(page, []byte("| `"+string(fault)+"` | ")) {
			t.Errorf("no table of the page has the fault %s", fault)
		}
	}
}

// byThePage returns the record of payload, in hexadecimal, as the page has it made, and by
// nothing that the code uses.
func byThePage(t *testing.T, payload string) (record []byte) {
	raw, err := hex.DecodeString(payload)
	if err != nil {
		t.Fatal(err)
	}
	key := ed25519.NewKeyFromSeed(from(0))
	var unsigned []byte
	for _, part := range []string{"ocnode-record", "/ocnode/record/1", string(raw)} {
		unsigned = append(binary.AppendUvarint(unsigned, uint64(len(part))), part...)
	}
	record = append([]byte{1<<3 | 2, 36, 1 << 3, 1, 2<<3 | 2, 32}, key.Public().(ed25519.PublicKey)...)
	record = append(append(record, 2<<3|2, 16), "/ocnode/record/1"...)
	record = append(binary.AppendUvarint(append(record, 3<<3|2), uint64(len(raw))), raw...)
	return append(append(record, 5<<3|2, 64), ed25519.Sign(key, unsigned)...)
}
