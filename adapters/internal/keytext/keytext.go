// Package keytext writes and reads the PeerIDs of Ed25519 keys. A takeover of a table does so several
// times an entry, and the general way takes six times as long.
package keytext

import (
	"encoding/binary"
	"math/bits"
	"strings"
)

// A PeerID of an Ed25519 key is the key behind head, in base 58. So the text has always the same length,
// and begins with prefix.
const (
	head     = "\x00\x24\x08\x01\x12\x20"
	prefix   = "12D3KooW"
	keyBytes = 32
	textLen  = 52
	alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	// group is 58^10: ten digits are the most that fit into 64 bits.
	group       = 430804206899405824
	groupDigits = 10
	// limbs are 64 bits each: the text is a number of 296 bits.
	limbs = 5
	// headValue is head as a number, above the key.
	headValue = 0x24_08_01_12_20
)

// digits has the value of each character, and none where a character is no digit.
var digits = func() (values [256]uint8) {
	for i := range values {
		values[i] = none
	}
	for i := range len(alphabet) {
		values[alphabet[i]] = uint8(i)
	}
	return values
}()

const none = 0xff

// idBytes is the size of a PeerID of an Ed25519 key.
const idBytes = len(head) + keyBytes

// Text returns the text of a PeerID in binary. ok is false unless it is that of an Ed25519 key.
func Text(id []byte) (text string, ok bool) {
	if len(id) != idBytes || string(id[:len(head)]) != head {
		return "", false
	}
	return encode(id[len(head):]), true
}

// Binary returns the PeerID of that text in binary. ok is false unless it is that of an Ed25519 key, as
// Text writes it.
func Binary(text string) (id [idBytes]byte, ok bool) {
	key, ok := decode(text)
	if ok {
		copy(id[copy(id[:], head):], key[:])
	}
	return id, ok
}

// encode returns the text of the PeerID of key, which has 32 bytes.
func encode(key []byte) string {
	number := [limbs]uint64{headValue} // the highest first
	for i := 1; i < limbs; i++ {
		number[i] = binary.BigEndian.Uint64(key[8*(i-1):])
	}
	var text [textLen]byte
	first := 0 // the first limb that is not 0
	for end := textLen; end > 1; end -= groupDigits {
		var rest uint64
		for i := first; i < limbs; i++ {
			number[i], rest = bits.Div64(rest, number[i], group)
		}
		for first < limbs-1 && number[first] == 0 {
			first++
		}
		for i := end - 1; i >= max(end-groupDigits, 1); i-- {
			text[i] = alphabet[rest%58]
			rest /= 58
		}
	}
	text[0] = alphabet[0] // the first byte of head is 0
	return string(text[:])
}

// decode returns the key of a PeerID. ok is false unless text is as encode writes it.
func decode(text string) (key [keyBytes]byte, ok bool) {
	if len(text) != textLen || !strings.HasPrefix(text, prefix) {
		return key, false
	}
	var number [limbs]uint64
	for at := 1; at < textLen; {
		// The first group is the rest: one digit.
		until := at + (textLen-at-1)%groupDigits + 1
		value, factor := uint64(0), uint64(1)
		for ; at < until; at++ {
			d := digits[text[at]]
			if d == none {
				return key, false
			}
			value, factor = 58*value+uint64(d), 58*factor
		}
		for i := limbs - 1; i >= 0; i-- {
			high, low := bits.Mul64(number[i], factor)
			var carry uint64
			number[i], carry = bits.Add64(low, value, 0)
			value = high + carry
		}
		if value != 0 {
			return key, false
		}
	}
	if number[0] != headValue {
		return key, false
	}
	for i := 1; i < limbs; i++ {
		binary.BigEndian.PutUint64(key[8*(i-1):], number[i])
	}
	return key, true
}
