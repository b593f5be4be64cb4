package ports

import "fmt"

// Code is the reason of a refusal. Codes travel on the wire and are never renamed.
type Code string

const (
	// CodeMalformed is a frame that is not one JSON object of the contract, or a PeerID that
	// does not decode.
	CodeMalformed Code = "malformed"
	// CodeTooLarge is a frame over MaxFrameBytes, or metadata over MaxMetaBytes or
	// MaxMetaNames.
	CodeTooLarge Code = "too_large"
	// CodePeerMismatch is a PeerID other than the connection's.
	CodePeerMismatch Code = "peer_mismatch"
	// CodeAddrInvalid is an address that cannot be dialled, too many addresses, or Addrs whose
	// first address is not Addr.
	CodeAddrInvalid Code = "addr_invalid"
	// CodeProofInvalid is an invalid record or tick.
	CodeProofInvalid Code = "proof_invalid"
	// CodeSuperseded is a record older than the native's, from a process that started earlier:
	// another process with the same key has taken its place.
	CodeSuperseded Code = "superseded"
	// CodeRefused is a native that does not admit this indexer.
	CodeRefused Code = "refused"
	// CodeBusy is a native that cannot take a registration now; a retry may succeed.
	CodeBusy Code = "busy"
	// CodeOutOfRange is a page limit below 1 or over MaxPage.
	CodeOutOfRange Code = "out_of_range"
	// CodeNotFound is a PeerID that is not alive, as far as the native knows.
	CodeNotFound Code = "not_found"
	// CodeTooSlow is a watcher that did not read its watch in time.
	CodeTooSlow Code = "too_slow"
)

// Refusal is a native's refusal of a request. The native and the remote caller both use it as an
// error (errors.As).
type Refusal struct {
	Code Code
	// Message explains the refusal and the remedy, for people.
	Message string
	// Unshown are addresses in the record, never the first, that the sender could not prove its
	// own: the native may take a record without them.
	Unshown []string
	// Untried are those of Unshown that the native has no route to: they were not tried. Another
	// native may show them.
	Untried []string
	// Limit is the native's limit behind the refusal; "" without a limit, or from a remote
	// native.
	Limit Limit
}

// Refuse returns a Refusal with a formatted message.
func Refuse(code Code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s", r.Code, r.Message) }
