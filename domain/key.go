package domain

import (
	"strings"

	"github.com/opencloud/ocnode/ports"
)

// The texts of PeerIDs with a whole key in them all begin alike. The beginning is left out of a key.
const (
	ed25519Text   = "12D3KooW" // and 44 letters
	secp256k1Text = "16Uiu2HA" // and 45 letters
)

// keyRoom is the room for the text of a PeerID in a slot: enough for the rest of the texts above, and
// for the 46 letters of a PeerID that is a hash.
const keyRoom = 46

// key is the text of a PeerID without a pointer. It never changes while its indexer is held.
type key struct {
	text [keyRoom]byte
	form uint8 // the length of a short text, or one of the forms below
}

const (
	keyEd25519   uint8 = 0xff - iota // text has what follows ed25519Text
	keySecp256k1                     // text has what follows secp256k1Text
	keyLong                          // text has the number of the PeerID in the table's names
)

func keyOf(id ports.PeerID, long *names) (k key) {
	switch {
	case len(id) == len(ed25519Text)+44 && strings.HasPrefix(string(id), ed25519Text):
		k.form = keyEd25519
		copy(k.text[:], id[len(ed25519Text):])
	case len(id) == len(secp256k1Text)+45 && strings.HasPrefix(string(id), secp256k1Text):
		k.form = keySecp256k1
		copy(k.text[:], id[len(secp256k1Text):])
	case len(id) <= keyRoom:
		k.form = uint8(len(id))
		copy(k.text[:], id)
	default:
		k.form = keyLong
		putNumber(k.text[:], long.use(id))
	}
	return k
}

// parts returns the text in two parts.
func (k *key) parts(long *names) (head string, tail []byte) {
	switch k.form {
	case keyEd25519:
		return ed25519Text, k.text[:44]
	case keySecp256k1:
		return secp256k1Text, k.text[:45]
	case keyLong:
		return string(long.at(number(k.text[:]))), nil
	}
	return "", k.text[:k.form]
}

func (k *key) id(long *names) ports.PeerID {
	head, tail := k.parts(long)
	if len(tail) == 0 {
		return ports.PeerID(head)
	}
	return ports.PeerID(head + string(tail))
}

// is reports whether k is the text of id.
func (k *key) is(id ports.PeerID, long *names) bool {
	head, tail := k.parts(long)
	return len(id) == len(head)+len(tail) && string(id[len(head):]) == string(tail) && string(id[:len(head)]) == head
}

// compare compares the text of k with id.
func (k *key) compare(id ports.PeerID, long *names) int {
	head, tail := k.parts(long)
	n := min(len(head), len(id))
	if c := strings.Compare(head, string(id[:n])); c != 0 {
		return c
	}
	switch rest := string(id[n:]); {
	case string(tail) < rest:
		return -1
	case string(tail) > rest:
		return 1
	}
	return 0
}

// drop lets go of k.
func (k *key) drop(long *names) {
	if k.form == keyLong {
		long.drop(number(k.text[:]))
	}
}
