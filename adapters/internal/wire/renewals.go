package wire

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/opencloud/ocnode/ports"
)

// The fields of a block of renewals: a time, and columns.
const (
	renewalsRemaining = 1
	renewalsNumbers   = 2
	renewalsSteps     = 3
	renewalsAges      = 4
	renewalsLinks     = 5
	renewalsExpires   = 6
)

// blockSize bounds the renewals of a block: it then has at most some 40 KiB, whatever its numbers are.
const blockSize = 700

// linkBytes is the length of a link.
const linkBytes = len(ports.Link{})

// appendRenewals appends the message of a block without a tag.
func appendRenewals(b []byte, block []ports.Renewal) []byte {
	var most int64
	for i := range block {
		most = max(most, block[i].Remaining.Milliseconds())
	}
	room := 3 * len(block) // most numbers and steps take one byte, most ages two, most ends five
	numbers, steps, ages := make([]byte, 0, room), make([]byte, 0, room), make([]byte, 0, room)
	var links, expires []byte
	var number uint32
	var ends int64
	for i := range block {
		r := &block[i]
		numbers = binary.AppendUvarint(numbers, uint64(r.Number-number))
		number = r.Number
		ages = binary.AppendUvarint(ages, uint64(most-max(r.Remaining.Milliseconds(), 0)))
		if r.ExpiresAt != 0 {
			steps = append(steps, 0)
			expires = binary.AppendUvarint(expires, protowire.EncodeZigZag(r.ExpiresAt-ends))
			ends = r.ExpiresAt
			continue
		}
		if links == nil {
			links = make([]byte, 0, linkBytes*(len(block)-i))
		}
		steps = binary.AppendUvarint(steps, uint64(r.Step)+1)
		links = append(links, r.Link[:]...)
	}
	b = appendNumber(b, renewalsRemaining, uint64(most))
	for i, column := range [][]byte{numbers, steps, ages, links, expires} {
		b = appendBinary(b, protowire.Number(renewalsNumbers+i), column)
	}
	return b
}

// column is a packed column that is read from its start.
type column []byte

// count returns the number of values.
func (c column) count() (n int) {
	for _, b := range c {
		if b < 0x80 {
			n++
		}
	}
	return n
}

// next returns the next value. ok is false at the end of the column, and if it is no number.
func (c *column) next() (value uint64, ok bool) {
	if b := *c; len(b) > 0 && b[0] < 0x80 { // as most are
		*c = b[1:]
		return uint64(b[0]), true
	}
	value, n := binary.Uvarint(*c)
	if n <= 0 {
		return 0, false
	}
	*c = (*c)[n:]
	return value, true
}

// decodeRenewals appends the renewals of a block. It looks at the length of each column before it
// makes room for them.
func decodeRenewals(to []ports.Renewal, block []byte) ([]ports.Renewal, error) {
	var remaining uint64
	var of [renewalsExpires + 1]column
	err := eachField(block, func(f field) (err error) {
		switch {
		case f.number == renewalsRemaining:
			remaining, err = f.long(maxMilliseconds)
		case f.number > renewalsExpires:
		case of[f.number] != nil:
			err = errColumns
		default:
			of[f.number], err = f.bytes()
		}
		return err
	})
	if err != nil {
		return to, err
	}
	numbers, steps, ages, links, expires := of[renewalsNumbers], of[renewalsSteps], of[renewalsAges], of[renewalsLinks], of[renewalsExpires]
	count, plain := numbers.count(), expires.count()
	if steps.count() != count || ages.count() != count || plain > count || len(links) != (count-plain)*linkBytes {
		return to, errColumns
	}
	to = slices.Grow(to, count) // by more than it needs, so that many small blocks copy little
	var number, ends uint64
	if len(to) > 0 {
		number = uint64(to[len(to)-1].Number) // a block goes on where the one before it ended
	}
	first := true
	for range count {
		delta, is := numbers.next()
		step, has := steps.next()
		age, ok := ages.next()
		if !is || !has || !ok {
			return to, errCut
		}
		next := delta
		if !first {
			next += number
		}
		if delta > math.MaxUint32 || next > math.MaxUint32 || next <= number && len(to) > 0 {
			return to, errOrder
		}
		first, number = false, next
		to = to[:len(to)+1]
		r := &to[len(to)-1]
		*r = ports.Renewal{Number: uint32(number), Remaining: time.Duration(remaining-min(age, remaining)) * time.Millisecond}
		switch {
		case step > 0 && len(links) >= linkBytes:
			r.Step = uint32(min(step-1, math.MaxUint32))
			copy(r.Link[:], links)
			links = links[linkBytes:]
		case step == 0:
			delta, ok := expires.next()
			if !ok {
				return to, errColumns
			}
			ends += uint64(protowire.DecodeZigZag(delta)) // it may wrap: then it names no lease
			r.ExpiresAt = int64(ends)
		default:
			return to, errColumns
		}
	}
	if len(numbers)+len(steps)+len(ages)+len(expires) > 0 {
		return to, errCut // in the middle of a number
	}
	return to, nil
}
