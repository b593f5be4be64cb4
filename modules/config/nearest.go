package config

import (
	"strings"

	"github.com/agnivade/levenshtein"
)

// maxEdits is how far a slip of the fingers goes: one letter wrong, missing or too
// many, or two neighbours swapped, which counts as two.
const maxEdits = 2

// Nearest returns the known word that was probably meant by word: the one with the
// fewest edits between them, the first of equals, letter case aside. It returns "" if
// none is near, that is, within two edits and with a letter in common.
func Nearest(word string, known []string) string {
	nearest, fewest := "", maxEdits+1
	for _, candidate := range known {
		if longer := len(word) - len(candidate); longer > maxEdits || longer < -maxEdits {
			continue
		}
		edits := levenshtein.ComputeDistance(strings.ToLower(word), strings.ToLower(candidate))
		if edits < fewest && edits < max(len(word), len(candidate)) {
			nearest, fewest = candidate, edits
		}
	}
	return nearest
}
