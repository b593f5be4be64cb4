// Package wire is the codec that the adapters share: the frames of registration,
// leave, look-up and watch in JSON, as package stream carries them, and the entry,
// as package kaddht stores it; and the frames of the binary protocols, open
// heartbeats and the watch between natives. docs/protocol.md specifies all of it.
//
// JSON is decoded strictly. A text is one JSON object in UTF-8 of at most
// ports.MaxFrameBytes (lines of a look-up's answer and frames of a watch have
// bounds of their own) and ports.MaxNesting, without duplicate names, with
// nothing but blanks around it; unknown names are ignored, but one that differs
// from a known name only in case is refused, since a lenient reader elsewhere
// would take it for that name. null stands for the absent value.
//
// A frame in binary is a length and a message in protobuf. Fields that are not known
// are passed over. No field has memory made for it before its bytes are there.
//
// Whatever breaks a rule, in either direction, is a *ports.Refusal: malformed or
// too_large; what is wrong with an answer is an error that is none, since the
// other side has refused nothing. Which identity and which addresses are acceptable is not decided
// here.
package wire
