package domain

import "github.com/opencloud/ocnode/ports"

// pageSize is how many numbers a page of a tally has. A native that tells numbers far apart has its
// follower keep a page of 384 bytes for each: some five times what it sends for that.
const pageSize = 16

// tally is what has been told of the leases of a native, by number. The native and its followers
// each keep a tally, and compare the sums.
type tally struct {
	pages []*[pageSize]numbered // nil without a number that stands, or stood
	made  int                   // how many of them are not nil
	count uint32                // how many numbers stand for an indexer
	sum   uint64                // of their items
}

// numbered is an indexer, by its number.
type numbered struct {
	pointer        // to its record
	record  uint16 // the last bits of the Seq of the record that was told last
	item    uint32 // the last that was told of it: see itemOf
	content uint32 // of what was told last: see contentOf
	tries   uint8  // how many renewals in a row came to nothing
	stands  bool   // the number stands for an indexer
}

// at returns what number n stands for. It is nil, or does not stand, if that is no indexer.
func (t *tally) at(n uint32) *numbered {
	if page := int(n / pageSize); page < len(t.pages) && t.pages[page] != nil {
		return &t.pages[page][n%pageSize]
	}
	return nil
}

// define has number n stand for an indexer. rec points to its record, if there is one.
func (t *tally) define(n uint32, rec pointer, is summed) *numbered {
	page := int(n / pageSize)
	if page >= len(t.pages) {
		t.pages = append(t.pages, make([]*[pageSize]numbered, page+1-len(t.pages))...)
	}
	if t.pages[page] == nil {
		t.pages[page] = new([pageSize]numbered)
		t.made++
	}
	at := &t.pages[page][n%pageSize]
	if !at.stands {
		t.count++
		at.item = 0
	}
	at.pointer, at.content, at.stands = rec, is.content, true
	t.set(at, is.item)
	return at
}

// bytes is the memory of t.
func (t *tally) bytes() int { return placeBytes*len(t.pages) + numberBytes*pageSize*t.made }

// more is how much memory it takes to define number n.
func (t *tally) more(n uint32) (bytes int) {
	page := int(n / pageSize)
	if page < len(t.pages) && t.pages[page] != nil {
		return 0
	}
	return placeBytes*max(0, page+1-len(t.pages)) + numberBytes*pageSize
}

// set has item be the last that was told of is.
func (t *tally) set(is *numbered, item uint32) {
	t.sum += uint64(item) - uint64(is.item)
	is.item = item
}

// free has number n stand for no indexer, and reports whether it did before.
func (t *tally) free(n uint32) bool {
	is := t.at(n)
	if is == nil || !is.stands {
		return false
	}
	t.count--
	t.sum -= uint64(is.item)
	*is = numbered{}
	return true
}

// stands reports whether number n stands for an indexer.
func (t *tally) stands(n uint32) bool {
	is := t.at(n)
	return is != nil && is.stands
}

// end returns a number behind all that stand for an indexer.
func (t *tally) end() uint32 { return uint32(len(t.pages)) * pageSize }

// each calls f with the numbers from from on, and before until, that stand for an indexer; until 0 is no end.
// f may free the number that it is called with.
func (t *tally) each(from, until uint32, f func(n uint32, is *numbered)) {
	if until == 0 {
		until = t.end()
	}
	until = min(until, t.end())
	for n := from; n < until; {
		page := t.pages[n/pageSize]
		last := min(until, (n/pageSize+1)*pageSize)
		if page == nil {
			n = last
			continue
		}
		for ; n < last; n++ {
			if is := &page[n%pageSize]; is.stands {
				f(n, is)
			}
		}
	}
}

// total returns the count and the sum of all numbers.
func (t *tally) total() ports.Range { return ports.Range{Count: t.count, Sum: t.sum} }

// sums returns the count and the sum of a range.
func (t *tally) sums(from, until uint32) ports.Range {
	r := ports.Range{From: from, Until: until}
	t.each(from, until, func(_ uint32, is *numbered) {
		r.Count++
		r.Sum += uint64(is.item)
	})
	return r
}
