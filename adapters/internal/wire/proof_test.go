package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/ports"
)

// The codec does not read records, so any bytes travel.
var (
	someRecord = []byte("\x00\x0a a record \xff\xfe")
	someTick   = ports.Tick{Seq: 1772359200500, Step: 7, Link: ports.Link{0: 1, 15: 0xff, 31: 2}}
)

const (
	recordMember = `"Record":"AAogYSByZWNvcmQg//4="`
	linkText     = `AQAAAAAAAAAAAAAAAAAA/wAAAAAAAAAAAAAAAAAAAAI=`
	tickMember   = `"Tick":{"Seq":1772359200500,"Step":7,"Link":"` + linkText + `"}`
)

// someProof draws what an entry may come with; nil for nothing.
func someProof(t *rapid.T) *ports.Proof {
	tick := ports.Tick{Seq: rapid.Int64Range(1, 1<<48).Draw(t, "Seq"), Step: rapid.Uint32().Draw(t, "Step")}
	copy(tick.Link[:], rapid.SliceOfN(rapid.Byte(), 0, 32).Draw(t, "Link"))
	record := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "Record")
	switch rapid.IntRange(0, 3).Draw(t, "proof") {
	case 0:
		return &ports.Proof{Record: record, Tick: tick}
	case 1:
		return &ports.Proof{Record: record}
	case 2:
		return &ports.Proof{Tick: tick}
	}
	return nil
}

func TestProofsTravel(t *testing.T) {
	at := time.Date(2026, 3, 1, 10, 1, 6, 5e8, time.UTC)
	for name, c := range map[string]struct {
		proof   ports.Proof
		members string
	}{
		"record and tick": {ports.Proof{Record: someRecord, Tick: someTick}, `,` + recordMember + `,` + tickMember},
		"record":          {ports.Proof{Record: someRecord}, `,` + recordMember},
		"tick":            {ports.Proof{Tick: someTick}, `,` + tickMember},
	} {
		p := c.proof
		about := `"PeerID":"` + string(self) + `","Addr":"a"`

		registration := ports.Registration{PeerID: self, Addr: "a", Proof: &p}
		line, err := wire.EncodeRegistration(registration)
		if want := `{` + about + c.members + "}\n"; err != nil || string(line) != want {
			t.Errorf("%s, a registration: got %s and %v, want %s", name, line, err, want)
		}
		gotRegistration, err := readAndDecode(bytes.NewReader(line))
		if diff := cmp.Diff(registration, gotRegistration); diff != "" || err != nil {
			t.Errorf("%s, a registration: %v: %s", name, err, diff)
		}

		entry := ports.Entry{PeerID: self, Addr: "a", ExpiresAt: at, Proof: &p}
		value, err := wire.EncodeEntry(entry)
		if want := `{` + about + `,"ExpiresAt":"2026-03-01T10:01:06.5Z"` + c.members + "}"; err != nil || string(value) != want {
			t.Errorf("%s, a value: got %s and %v, want %s", name, value, err, want)
		}
		gotEntry, err := wire.DecodeEntry(value)
		if diff := cmp.Diff(entry, gotEntry); diff != "" || err != nil {
			t.Errorf("%s, a value: %v: %s", name, err, diff)
		}

		listed := ports.Listed{Entry: entry, State: ports.StateLive, Source: ports.SourceOwn, Remaining: time.Minute}
		line, err = wire.AppendListed(nil, &listed, now)
		if want := `{` + about + `,"ExpiresAt":"2026-03-01T10:01:06.5Z","State":"live","Source":"own","LeftSeconds":60` + c.members + "}\n"; err != nil || string(line) != want {
			t.Errorf("%s, a line: got %s and %v, want %s", name, line, err, want)
		}
		gotListed, _, err := wire.DecodeListed(bytes.TrimSpace(line), now)
		if diff := cmp.Diff(listed, gotListed); diff != "" || err != nil {
			t.Errorf("%s, a line: %v: %s", name, err, diff)
		}

		batch := ports.Batch{Now: at, Live: 1, Changes: []ports.Change{{Kind: ports.ChangeRenewed, Listed: listed}}, Cursor: "7"}
		all := frames(t, &batch)
		if want := `{"Now":"2026-03-01T10:01:06.5Z","Live":1,"Changes":[{"Kind":"renewed",`; len(all) != 1 || !bytes.HasPrefix(all[0], []byte(want)) {
			t.Errorf("%s, a batch: got %s, want %s…", name, all, want)
		}
		gotBatch, err := wire.DecodeBatch(bytes.TrimSpace(all[0]), now)
		if diff := cmp.Diff(batch, gotBatch); diff != "" || err != nil {
			t.Errorf("%s, a batch: %v: %s", name, err, diff)
		}
	}

	line, err := wire.EncodeLeave(self, someRecord)
	if want := `{"PeerID":"` + string(self) + `",` + recordMember + "}\n"; err != nil || string(line) != want {
		t.Errorf("a leave: got %s and %v, want %s", line, err, want)
	}
	if id, record, err := wire.DecodeLeave(bytes.TrimSpace(line), other); err != nil || id != self || !bytes.Equal(record, someRecord) {
		t.Errorf("a leave: got %s, %x and %v", id, record, err)
	}

	line, err = wire.EncodeQuestion(wire.Question{Query: ports.Query{Limit: 7, Proofs: true}})
	if err != nil || string(line) != `{"Limit":7,"Proofs":true}`+"\n" {
		t.Errorf("a question: got %s and %v", line, err)
	}
	if q, err := wire.DecodeQuestion([]byte(`{"Proofs":true}`)); err != nil || !q.Query.Proofs {
		t.Errorf("a question: got %+v and %v", q, err)
	}
	line, err = wire.EncodeWatch(ports.WatchRequest{Proofs: true})
	if err != nil || string(line) != `{"Proofs":true}`+"\n" {
		t.Errorf("a watch: got %s and %v", line, err)
	}
	if w, err := wire.DecodeWatch(bytes.TrimSpace(line)); err != nil || !w.Proofs {
		t.Errorf("a watch: got %+v and %v", w, err)
	}
}

// A record says the addresses and the metadata, so a registration need not.
func TestARegistrationWithAProofSaysThemOnce(t *testing.T) {
	line, err := wire.EncodeRegistration(ports.Registration{
		PeerID: self, Addr: "a", Addrs: []string{"a", "b"}, Meta: map[string]string{"zone": "eu"}, Proof: &ports.Proof{Record: someRecord, Tick: someTick},
	})
	if want := `{"PeerID":"` + string(self) + `","Addr":"a",` + recordMember + `,` + tickMember + "}\n"; err != nil || string(line) != want {
		t.Errorf("got %s and %v, want %s", line, err, want)
	}
	// Who says them all the same is heard; that they are the record's is for others to see.
	r, err := wire.DecodeRegistration([]byte(`{"PeerID":"`+string(self)+`","Addr":"a","Addrs":["a","b"],"Meta":{"zone":"eu"},`+recordMember+`}`), self)
	if err != nil || len(r.Addrs) != 2 || r.Meta["zone"] != "eu" || r.Proof == nil {
		t.Errorf("got %+v and %v", r, err)
	}
}

func TestDecodeOfProofs(t *testing.T) {
	const about = `"PeerID":"` + string(self) + `","Addr":"a"`
	for name, c := range map[string]struct {
		members string
		want    *ports.Proof // nil for none
		code    ports.Code
	}{
		"both":                           {recordMember + `,` + tickMember, &ports.Proof{Record: someRecord, Tick: someTick}, ""},
		"in the other order":             {`"Tick":{"Link":"` + linkText + `","Step":7,"Seq":1772359200500,"X":[1]},` + recordMember, &ports.Proof{Record: someRecord, Tick: someTick}, ""},
		"null for what is absent":        {`"Record":null,"Tick":null`, nil, ""},
		"a tick that says nothing":       {`"Tick":{}`, nil, ""},
		"a tick of zeros":                {`"Tick":{"Seq":0,"Step":0,"Link":null}`, nil, ""},
		"a tick without a link":          {`"Tick":{"Seq":7}`, &ports.Proof{Tick: ports.Tick{Seq: 7}}, ""},
		"an empty record":                {`"Record":""`, &ports.Proof{Record: []byte{}}, ""},
		"the highest step":               {`"Tick":{"Seq":1,"Step":4294967295}`, &ports.Proof{Tick: ports.Tick{Seq: 1, Step: 1<<32 - 1}}, ""},
		"a record in another case":       {`"record":"AA=="`, nil, ports.CodeMalformed},
		"a record in capitals":           {recordMember + `,"RECORD":"AA=="`, nil, ports.CodeMalformed},
		"a tick in another case":         {`"tick":{}`, nil, ports.CodeMalformed},
		"a tick with the sign of kelvin": {"\"tic\u212a\":{}", nil, ports.CodeMalformed},
		"a record twice":                 {recordMember + `,` + recordMember, nil, ports.CodeMalformed},
		"a tick twice":                   {tickMember + `,` + tickMember, nil, ports.CodeMalformed},
		"a Seq twice":                    {`"Tick":{"Seq":1,"Seq":2}`, nil, ports.CodeMalformed},
		"a record of no base64":          {`"Record":"%%%%"`, nil, ports.CodeMalformed},
		"a record without padding":       {`"Record":"AA"`, nil, ports.CodeMalformed},
		// Whatever stands there, the bytes are the same.
		"a record with bits to spare":  {`"Record":"AB=="`, &ports.Proof{Record: []byte{0}}, ""},
		"a record of the URL's base64": {`"Record":"__8="`, nil, ports.CodeMalformed},
		"a record with a newline":      {`"Record":"AA\n=="`, nil, ports.CodeMalformed},
		"a record with a blank":        {`"Record":"AA== "`, nil, ports.CodeMalformed},
		"a record of numbers":          {`"Record":[1,2]`, nil, ports.CodeMalformed},
		"a record that is a number":    {`"Record":1`, nil, ports.CodeMalformed},
		"a link of 31 bytes":           {`"Tick":{"Seq":1,"Link":"AQAAAAAAAAAAAAAAAAAA/wAAAAAAAAAAAAAAAAAAAA=="}`, nil, ports.CodeMalformed},
		"a link of 33 bytes":           {`"Tick":{"Seq":1,"Link":"AQAAAAAAAAAAAAAAAAAA/wAAAAAAAAAAAAAAAAAAAAIA"}`, nil, ports.CodeMalformed},
		"an empty link":                {`"Tick":{"Seq":1,"Link":""}`, nil, ports.CodeMalformed},
		"a link with bits to spare":    {`"Tick":{"Seq":1,"Link":"` + linkText[:42] + `J="}`, &ports.Proof{Tick: ports.Tick{Seq: 1, Link: someTick.Link}}, ""},
		"a link of numbers":            {`"Tick":{"Seq":1,"Link":[1]}`, nil, ports.CodeMalformed},
		"a negative step":              {`"Tick":{"Seq":1,"Step":-1}`, nil, ports.CodeMalformed},
		"a fraction of a step":         {`"Tick":{"Seq":1,"Step":1.5}`, nil, ports.CodeMalformed},
		"a step too large":             {`"Tick":{"Seq":1,"Step":4294967296}`, nil, ports.CodeMalformed},
		"a step as text":               {`"Tick":{"Seq":1,"Step":"1"}`, nil, ports.CodeMalformed},
		"a fraction of a Seq":          {`"Tick":{"Seq":1.5}`, nil, ports.CodeMalformed},
		"a Seq too large":              {`"Tick":{"Seq":9223372036854775808}`, nil, ports.CodeMalformed},
		"a Seq as text":                {`"Tick":{"Seq":"1"}`, nil, ports.CodeMalformed},
		"a tick that is a number":      {`"Tick":7`, nil, ports.CodeMalformed},
		"a tick that is a list":        {`"Tick":[]`, nil, ports.CodeMalformed},
	} {
		r, err := wire.DecodeRegistration([]byte(`{`+about+`,`+c.members+`}`), self)
		if code(t, err) != c.code {
			t.Errorf("%s, a registration: got %v, want %q", name, err, c.code)
		} else if err == nil {
			if diff := cmp.Diff(c.want, r.Proof); diff != "" {
				t.Errorf("%s, a registration: %s", name, diff)
			}
		}
		e, err := wire.DecodeEntry([]byte(`{` + about + `,"ExpiresAt":"2026-03-01T10:01:06.5Z",` + c.members + `}`))
		if code(t, err) != c.code {
			t.Errorf("%s, a value: got %v, want %q", name, err, c.code)
		} else if err == nil {
			if diff := cmp.Diff(c.want, e.Proof); diff != "" {
				t.Errorf("%s, a value: %s", name, diff)
			}
		}
		l, _, err := wire.DecodeListed([]byte(`{`+about+`,`+c.members+`}`), now)
		if (err != nil) != (c.code != "") {
			t.Errorf("%s, a line: got %v", name, err)
		} else if err == nil {
			if diff := cmp.Diff(c.want, l.Proof); diff != "" {
				t.Errorf("%s, a line: %s", name, diff)
			}
		}
		b, err := wire.DecodeBatch([]byte(`{"Changes":[{"Kind":"joined",`+about+`,`+c.members+`}]}`), now)
		if (err != nil) != (c.code != "") {
			t.Errorf("%s, a batch: got %v", name, err)
		} else if err == nil {
			if diff := cmp.Diff(c.want, b.Changes[0].Proof); diff != "" {
				t.Errorf("%s, a batch: %s", name, diff)
			}
		}
	}
	for _, members := range []string{`"record":""`, `"Record":7`, `"Record":"AA==","Record":"AA=="`} {
		if _, _, err := wire.DecodeLeave([]byte(`{"PeerID":"`+string(self)+`",`+members+`}`), self); code(t, err) != ports.CodeMalformed {
			t.Errorf("a leave with %s: got %v, want %s", members, err, ports.CodeMalformed)
		}
	}
	for _, question := range []string{`{"proofs":true}`, `{"Proofs":1}`, `{"Proofs":true,"Proofs":true}`} {
		if _, err := wire.DecodeQuestion([]byte(question)); code(t, err) != ports.CodeMalformed {
			t.Errorf("the question %s: got %v, want %s", question, err, ports.CodeMalformed)
		}
		if _, err := wire.DecodeWatch([]byte(question)); code(t, err) != ports.CodeMalformed {
			t.Errorf("the watch %s: got %v, want %s", question, err, ports.CodeMalformed)
		}
	}
}

func TestLeaseTellsOfTheRecord(t *testing.T) {
	at := time.Date(2026, 3, 1, 10, 0, 0, 5e8, time.UTC)
	for text, lease := range map[string]ports.Lease{
		`{"OK":true,"Now":"2026-03-01T10:00:00.5Z","NeedRecord":true,"Seq":1772359200500}`: {Now: at, NeedRecord: true, Seq: 1772359200500},
		`{"OK":true,"TTLSeconds":66,"Now":"2026-03-01T10:00:00.5Z","Clocks":3}`:            {TTL: 66 * time.Second, Now: time.Date(2026, 3, 1, 10, 0, 0, 5e8, time.UTC), Clocks: 3},
		`{"OK":true,"TTLSeconds":66,"Seq":7,"Rival":true}`:                                 {TTL: 66 * time.Second, Seq: 7, Rival: true},
		`{"OK":true,"TTLSeconds":66,"HeartbeatSeconds":60,"ProvenSeconds":48.5,"Seq":7}`:   {TTL: 66 * time.Second, Heartbeat: time.Minute, Proven: 48500 * time.Millisecond, Seq: 7},
		`{"OK":true,"TTLSeconds":66,"ProvenSeconds":-3}`:                                   {TTL: 66 * time.Second, Proven: -3 * time.Second},
	} {
		line := wire.EncodeLease(lease)
		if string(line) != text+"\n" {
			t.Errorf("got %swant %s", line, text)
		}
		if got, err := wire.DecodeAnswer(bytes.TrimSpace(line)); err != nil || got != lease {
			t.Errorf("%s decodes to %+v, %v", text, got, err)
		}
	}
	// A native that is wrong about Seq has still granted a lease.
	for _, seq := range []string{`"7"`, `-7`, `7.5`, `7e0`, `1e999`, `null`, `true`, `[7]`, `{"Seq":7}`, `99999999999999999999`, `0`} {
		got, err := wire.DecodeAnswer([]byte(`{"OK":true,"TTLSeconds":66,"Seq":` + seq + `}`))
		if err != nil || got != (ports.Lease{TTL: 66 * time.Second}) {
			t.Errorf("with the Seq %s: got %+v and %v, want a lease that does not say", seq, got, err)
		}
	}
	for _, answer := range []string{`{"OK":true,"needRecord":true}`, `{"OK":true,"seq":7}`, `{"OK":true,"provenSeconds":7}`, `{"OK":true,"RIVAL":true}`, `{"OK":true,"NeedRecord":1}`, `{"OK":true,"Rival":"true"}`} {
		if got, err := wire.DecodeAnswer([]byte(answer)); err == nil {
			t.Errorf("%s: got %+v", answer, got)
		}
	}
}

// largest is the registration with the most that the contract allows: what its addresses,
// all of them the longest, and its metadata are made of is as given.
func largest(t *testing.T, meta map[string]string) (ports.Registration, *ports.Claim) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	r := ports.Registration{PeerID: ports.PeerID(id.String()), Meta: meta}
	for i := range ports.MaxAddrs {
		const before, behind = "/dns4/", "/udp/65535/quic-v1"
		name := strings.Repeat(fmt.Sprint(i), ports.MaxAddrBytes-len(before)-len(behind))
		r.Addrs = append(r.Addrs, before+name+behind)
	}
	r.Addr = r.Addrs[0]
	signer, err := proof.NewSigner(key, "")
	if err != nil {
		t.Fatal(err)
	}
	chain := signer.Chain(2)
	claim := &ports.Claim{
		PeerID: r.PeerID, Addrs: r.Addrs, Meta: r.Meta, Seq: 1<<48 - 1, Start: 1<<64 - 1,
		Interval: ports.MaxInterval, TTL: ports.MaxInterval, Anchor: chain[0],
	}
	record, err := signer.Sign(*claim)
	if err != nil {
		t.Fatal(err)
	}
	r.Proof = &ports.Proof{Record: record, Tick: ports.Tick{Seq: claim.Seq, Step: ports.MaxSteps, Link: chain[1]}, Claim: claim}
	return r, claim
}

// Of the same 1 KiB, the metadata that costs the most: as many names as there can be.
func manyNames() map[string]string {
	meta := map[string]string{"": ""}
	size := 0
	for c := range rune(0x800) {
		name := string(c)
		if c < ' ' || c == 0x7f || size+len(name) > ports.MaxMetaBytes || len(meta) == ports.MaxMetaNames {
			continue
		}
		meta[name] = ""
		size += len(name)
	}
	return meta
}

func TestTheLargestRegistrationTravelsWithItsRecord(t *testing.T) {
	at := time.Date(2026, 3, 1, 10, 1, 6, 123456789, time.UTC)
	for name, meta := range map[string]map[string]string{
		"no metadata":           nil,
		"a label of 1 KiB":      {"k": strings.Repeat("v", ports.MaxMetaBytes-1)},
		"a label of JSON's own": {"k": strings.Repeat("\x00", ports.MaxMetaBytes-1)},
		"64 labels":             labels(64, 8),
		"as many as there can":  manyNames(),
	} {
		r, claim := largest(t, meta)
		line, err := wire.EncodeRegistration(r)
		if err != nil {
			t.Errorf("%s: a record of %d bytes does not fit a frame: %v", name, len(r.Proof.Record), err)
			continue
		}
		got, err := readAndDecode(bytes.NewReader(line))
		if err != nil || got.Addr != r.Addr || !bytes.Equal(got.Proof.Record, r.Proof.Record) || got.Proof.Tick != r.Proof.Tick {
			t.Errorf("%s: got %v", name, err)
		}

		e := ports.Entry{
			PeerID: r.PeerID, Addr: r.Addr, Addrs: r.Addrs, Meta: r.Meta,
			Native: other, SeenAt: at, ExpiresAt: at, Proof: r.Proof,
		}
		value, err := wire.EncodeEntry(e)
		if err != nil {
			t.Errorf("%s: a record of %d bytes does not fit a value: %v", name, len(r.Proof.Record), err)
			continue
		}
		stored, err := wire.DecodeEntry(value)
		if err != nil || !bytes.Equal(stored.Proof.Record, r.Proof.Record) || stored.Addr != r.Addr || !stored.ExpiresAt.Equal(at) {
			t.Errorf("%s: stored as %s: %v", name, value, err)
		}
		// What is left out, the record says; so it is left out as a whole or not at all.
		if stored.Addrs == nil != (stored.Meta == nil) && meta != nil || stored.Addrs != nil && !slices.Equal(stored.Addrs, claim.Addrs) || stored.Meta != nil && !maps.Equal(stored.Meta, claim.Meta) {
			t.Errorf("%s: stored are %d addresses and %d names", name, len(stored.Addrs), len(stored.Meta))
		}

		l := ports.Listed{Entry: e, State: ports.StateLate, Source: ports.SourceNative, Remaining: 123456789123456789}
		answer, err := wire.AppendListed(nil, &l, at)
		if err != nil {
			t.Errorf("%s: no line of a look-up: %v", name, err)
		}
		if all := frames(t, &ports.Batch{Changes: slices.Repeat([]ports.Change{{Kind: ports.ChangeSnapshot, Listed: l}}, 20)}); len(all) < 2 {
			t.Errorf("%s: 20 of them in %d frame", name, len(all))
		}
		t.Logf("%s: record %d, registration %d, value %d with %d of %d addresses, line %d bytes",
			name, len(r.Proof.Record), len(line)-1, len(value), max(len(stored.Addrs), 1), len(r.Addrs), len(answer)-1)
	}
}

// TestALineTooLongLeavesOutWhatItsRecordSays has text that takes a byte in a record and six
// in JSON.
func TestALineTooLongLeavesOutWhatItsRecordSays(t *testing.T) {
	at := time.Date(2026, 3, 1, 10, 1, 6, 0, time.UTC)
	var addrs []string
	for range ports.MaxAddrs {
		addrs = append(addrs, "/dns4/"+strings.Repeat("\x01", ports.MaxAddrBytes-len("/dns4//tcp/1"))+"/tcp/1")
	}
	meta := map[string]string{"k": strings.Repeat("\x01", ports.MaxMetaBytes-1)}
	e := ports.Entry{PeerID: other, Addr: addrs[0], Addrs: addrs, Meta: meta, ExpiresAt: at, Proof: &ports.Proof{
		Record: bytes.Repeat([]byte{1}, 4000), Tick: ports.Tick{Seq: 1},
	}}
	l := ports.Listed{Entry: e, State: ports.StateLive, Source: ports.SourceOwn, Remaining: time.Minute}
	line, err := wire.AppendListed(nil, &l, at)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := wire.DecodeListed(bytes.TrimSuffix(line, []byte("\n")), at)
	if err != nil || got.Addr != addrs[0] || got.Addrs != nil || got.Meta != nil || !bytes.Equal(got.Proof.Record, e.Proof.Record) || got.Remaining != l.Remaining {
		t.Errorf("got %+v, %v", got, err)
	}
	l.Proof = nil
	if _, err := wire.AppendListed(nil, &l, at); err == nil {
		t.Error("without a record it is no line, and there is no error")
	}
}

// labels returns so many labels that have 1 KiB together.
func labels(n, nameBytes int) map[string]string {
	meta := map[string]string{}
	for i := range n {
		meta[fmt.Sprintf("%0*d", nameBytes, i)] = strings.Repeat("v", ports.MaxMetaBytes/n-nameBytes)
	}
	return meta
}

// someVersions draws versions of one PeerID that are near each other.
func someVersions(t *rapid.T) (versions []ports.Version, values [][]byte) {
	for range rapid.IntRange(1, 6).Draw(t, "values") {
		v := ports.Version{ExpiresAt: now.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "ExpiresAt")))}
		if rapid.Bool().Draw(t, "bare") {
			v.Leave = rapid.Bool().Draw(t, "Left")
		} else {
			v.Seq, v.Step = rapid.Int64Range(1, 3).Draw(t, "Seq"), rapid.Uint32Range(0, 2).Draw(t, "Step")
		}
		versions = append(versions, v)
		values = append(values, []byte{rapid.Byte().Draw(t, "bytes") % 3})
	}
	return versions, values
}

// Everybody who has seen the same values holds the same one, in whatever order they came.
func TestOneValueStaysInAnyOrder(t *testing.T) {
	drawn, ties := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		versions, values := someVersions(t)
		places := make([]int, len(values))
		for i := range places {
			places[i] = i
		}
		stays := func(order []int) int {
			best := order[0]
			for _, i := range order[1:] {
				if wire.Beats(versions[i], values[i], versions[best], values[best]) {
					best = i
				}
			}
			return best
		}
		first := stays(places)
		for range 10 {
			order := rapid.Permutation(places).Draw(t, "order")
			if other := stays(order); other != first {
				if versions[other].Compare(versions[first]) != 0 || !bytes.Equal(values[other], values[first]) {
					t.Fatalf("of %+v with %x, %d stays or %d", versions, values, first, other)
				}
				ties++
			}
		}
		for i := range versions {
			if wire.Beats(versions[i], values[i], versions[first], values[first]) {
				t.Fatalf("%d stays and %+v beats it", first, versions[i])
			}
			if versions[i].Signed() && !versions[first].Signed() {
				t.Fatalf("%+v stays where there is %+v", versions[first], versions[i])
			}
			drawn++
		}
	})
	t.Logf("%d values, %d times one that is the same in every byte", drawn, ties)
}

func TestWhatCouldNotBeShownTravels(t *testing.T) {
	want := ports.Refuse(ports.CodeAddrInvalid, "not yours")
	want.Unshown = []string{"/ip4/192.0.2.1/tcp/1", "/dns4/a.example/tcp/2"}
	want.Untried = []string{"/dns4/a.example/tcp/2"}
	frame, err := wire.EncodeRefusal(want)
	if err != nil {
		t.Fatal(err)
	}
	_, err = wire.DecodeAnswer(bytes.TrimSuffix(frame, []byte("\n")))
	if got, ok := errors.AsType[*ports.Refusal](err); !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", err, want)
	}
}
