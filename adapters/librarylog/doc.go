// Package librarylog brings what libraries write to logs of their own, which they have
// one of a process, into the log of one node.
//
// The libraries, and how each is reached:
//
//   - go-libp2p asks its gologshim for a handler at each logger's first line, once for
//     all: it gets one that looks up at every line who holds the claim.
//   - go-libp2p-kad-dht and what it stands on log through go-log, which is zap: it gets a
//     core that does the same. Its own levels follow the claim's, so that what nobody
//     hears is not even formatted.
//   - quic-go, and whatever else uses the standard library's log or slog.Default, is
//     redirected while a claim is held.
//   - OpenTelemetry takes a logger, and looks up the claim through it.
//
// The variables by which these libraries would choose a level, a format or a file
// (GOLOG_…) have no effect any more. Malformed ones are complained about on standard
// error by the libraries themselves, before any of this runs; so are panics that they
// caught, with their stack.
package librarylog
