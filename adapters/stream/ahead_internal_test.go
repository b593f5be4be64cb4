package stream

import (
	"errors"
	"fmt"
	"testing"

	"github.com/opencloud/ocnode/ports"
)

// partOf is a part of a table with that many changes, numbered from from on.
func partOf(from, n int) ports.Batch {
	b := ports.Batch{News: &ports.News{}}
	for i := range n {
		b.News.Changes = append(b.News.Changes, ports.Change{Number: uint32(from + i)})
	}
	return b
}

// What comes while a caller takes in a part is taken in together, in its order and up to a bound, and no
// batch is joined with a part that is more than one.
func TestPartsOfATableThatHaveComeAreTakenInTogether(t *testing.T) {
	const frames, each = 3 * aheadFrames, 150
	end := errors.New("the end")
	for _, is := range []struct {
		name string
		last ports.Batch
		err  error
	}{
		{"a cursor", ports.Batch{Cursor: "x.1", News: partOf(1, 1).News}, nil},
		{"renewals", ports.Batch{News: &ports.News{Changes: partOf(1, 1).News.Changes, Renewals: make([]ports.Renewal, 1)}}, nil},
		{"a new snapshot", ports.Batch{Reset: ports.ResetNew, News: partOf(1, 1).News}, nil},
		{"an old piece", ports.Batch{Age: 1, News: partOf(1, 1).News}, nil},
		{"sums", ports.Batch{Sums: make([]ports.Range, 1), News: partOf(1, 1).News}, nil},
		{"a range", ports.Batch{Told: make([]ports.Range, 1), News: partOf(1, 1).News}, nil},
		{"a beat", ports.Batch{}, nil},
		{"more changes than a frame has", partOf(1, maxPartChanges+1), nil},
		{"more addresses than an indexer has", ports.Batch{News: &ports.News{Changes: []ports.Change{{Listed: ports.Listed{Entry: ports.Entry{Addrs: make([]string, ports.MaxAddrs+1)}}}}}}, nil},
		{"an error", ports.Batch{}, end},
	} {
		t.Run(is.name, func(t *testing.T) {
			read, full := 0, make(chan struct{})
			next := func() (ports.Batch, error) {
				if read++; read == aheadFrames+1 { // it waits for the caller
					close(full)
				}
				if read == frames {
					return is.last, is.err
				}
				return partOf(1+read*each, each), nil
			}
			number, most := uint32(1), 0
			last, err := readAhead(partOf(1, each), next, func() { t.Error("it was stopped") }, func(b ports.Batch) bool {
				<-full
				for _, c := range b.News.Changes {
					if c.Number != number {
						t.Fatalf("change %d, want %d", c.Number, number)
					}
					number++
				}
				most = max(most, len(b.News.Changes))
				return true
			})
			if err != is.err || fmt.Sprint(last) != fmt.Sprint(is.last) {
				t.Errorf("it ended with %+v and %v, want %+v and %v", last, err, is.last, is.err)
			}
			if want := uint32(1 + frames*each); number != want {
				t.Errorf("changes until %d were taken in, want %d", number, want)
			}
			if most < joinedChanges || most >= joinedChanges+each {
				t.Errorf("%d changes came at once, want %d to %d", most, joinedChanges, joinedChanges+each-1)
			}
		})
	}
}

// A caller that wants no more ends the reader, wherever that is.
func TestAReaderAheadEndsWithItsCaller(t *testing.T) {
	for waits := range 3 {
		stopped, full := make(chan struct{}), make(chan struct{})
		read := 0
		next := func() (ports.Batch, error) {
			if read++; waits == 0 && read > 3 || waits == 1 { // it waits for the native
				<-stopped
				return ports.Batch{}, errors.New("reset")
			}
			if read == aheadFrames+1 { // it waits for the caller
				close(full)
			}
			return partOf(read, 1), nil
		}
		_, err := readAhead(partOf(0, 1), next, func() { close(stopped) }, func(ports.Batch) bool {
			if waits == 2 {
				<-full
			}
			return false
		})
		if err != errGone {
			t.Errorf("it ended with %v, want %v", err, errGone)
		}
	}
}

// Of many watches a few read ahead: each of the others hands on a part as it is.
func TestFewWatchesReadAhead(t *testing.T) {
	tr := &Transport{ahead: make(chan struct{}, maxAhead)}
	for range maxAhead {
		tr.ahead <- struct{}{}
	}
	refuse := func(ports.Batch) bool { t.Error("it yields"); return false }
	last, err := tr.readAhead(partOf(1, 2), nil, nil, refuse)
	if err != nil || len(last.News.Changes) != 2 {
		t.Errorf("it is %+v, %v", last, err)
	}
	<-tr.ahead
	end := errors.New("the end")
	yielded := 0
	_, err = tr.readAhead(partOf(1, 2), func() (ports.Batch, error) { return ports.Batch{}, end }, nil, func(ports.Batch) bool { yielded++; return true })
	if err != end || yielded != 1 || len(tr.ahead) != maxAhead-1 {
		t.Errorf("it yielded %d parts and ended with %v, and %d watches read ahead", yielded, err, len(tr.ahead))
	}
}
