package ports

import "fmt"

// Code names why a registration was refused. Codes travel on the wire and are
// never renamed.
type Code string

const (
	// CodeMalformed is a frame that is not one JSON object as the contract has it,
	// or a PeerID that does not decode.
	CodeMalformed Code = "malformed"
	// CodeTooLarge is a frame over MaxFrameBytes or metadata over MaxMetaBytes.
	CodeTooLarge Code = "too_large"
	// CodePeerMismatch is a PeerID that is not the connection's.
	CodePeerMismatch Code = "peer_mismatch"
	// CodeAddrInvalid is an address that nobody could dial, too many of them, or
	// Addrs whose first is not Addr.
	CodeAddrInvalid Code = "addr_invalid"
	// CodeRefused is a native that does not take this indexer.
	CodeRefused Code = "refused"
	// CodeBusy is a native that cannot take a registration now; try again later.
	CodeBusy Code = "busy"
)

// Refusal is a native's "no": its answer to a registration that it does not
// accept. Both the native that refuses and the remote end that reads the answer
// use it as an error (errors.As).
type Refusal struct {
	Code Code
	// Message says what was wrong and what to do; for people.
	Message string
}

// Refuse returns a Refusal with a formatted message.
func Refuse(code Code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s", r.Code, r.Message) }
