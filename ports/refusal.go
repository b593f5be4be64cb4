package ports

import "fmt"

// Code names why something was refused. Codes travel on the wire and are
// never renamed.
type Code string

const (
	// CodeMalformed is a frame that is not one JSON object as the contract has it,
	// or a PeerID that does not decode.
	CodeMalformed Code = "malformed"
	// CodeTooLarge is a frame over MaxFrameBytes, or metadata over MaxMetaBytes or
	// MaxMetaNames.
	CodeTooLarge Code = "too_large"
	// CodePeerMismatch is a PeerID that is not the connection's.
	CodePeerMismatch Code = "peer_mismatch"
	// CodeAddrInvalid is an address that nobody could dial, too many of them, or
	// Addrs whose first is not Addr.
	CodeAddrInvalid Code = "addr_invalid"
	// CodeProofInvalid is a record or a tick that proves nothing.
	CodeProofInvalid Code = "proof_invalid"
	// CodeSuperseded is a record older than one that the native knows, of a process that
	// started before: another one with the same key has taken its place.
	CodeSuperseded Code = "superseded"
	// CodeRefused is a native that does not take this indexer.
	CodeRefused Code = "refused"
	// CodeBusy is a native that cannot take a registration now; try again later.
	CodeBusy Code = "busy"
	// CodeOutOfRange is a limit of a page that is below 1 or over MaxPage.
	CodeOutOfRange Code = "out_of_range"
	// CodeNotFound is a PeerID that is not alive, as far as the native can tell.
	CodeNotFound Code = "not_found"
	// CodeTooSlow is a watcher that did not read what it asked for.
	CodeTooSlow Code = "too_slow"
)

// Refusal is a native's "no": its answer to what it does not accept. Both the native that refuses and the remote end that reads the answer
// use it as an error (errors.As).
type Refusal struct {
	Code Code
	// Message says what was wrong and what to do; for people.
	Message string
	// Unshown are addresses in the record, never the first, that could not be shown to be the
	// sender's: a record without them may be taken.
	Unshown []string
	// Limit is which of the native's limits it comes from, "" if from none or from afar.
	Limit Limit
}

// Refuse returns a Refusal with a formatted message.
func Refuse(code Code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s", r.Code, r.Message) }
