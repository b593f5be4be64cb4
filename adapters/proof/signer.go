package proof

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/record"

	"github.com/opencloud/ocnode/ports"
)

// seqFile has the highest number that records of this identity may have: it belongs with
// the key.
const seqFile = "record.seq"

// newFiles is the pattern of the files that become seqFile. A process that is killed leaves one.
const newFiles = seqFile + ".new-*"

// tornFile is where a file goes that holds no number: a full disk or a power cut has torn it.
const tornFile = seqFile + ".torn"

// maxSeqBytes bounds what is read of it.
const maxSeqBytes = 32

// Signer makes records with this node's key.
type Signer struct {
	key  crypto.PrivKey
	path string // "" keeps nothing
	torn bool

	mu   sync.Mutex
	last int64
}

var _ ports.Signer = (*Signer)(nil)

// NewSigner returns a signer for key, which keeps its numbers in dir; "" keeps them nowhere. No other
// signer may keep its numbers there. A file
// that holds no number that a record can have is set aside. The numbers then begin at what the
// caller knows: its clock, and the natives' answers.
func NewSigner(key crypto.PrivKey, dir string) (*Signer, error) {
	s := &Signer{key: key}
	if dir == "" {
		return s, nil
	}
	s.path = filepath.Join(dir, seqFile)
	left, _ := fs.Glob(os.DirFS(dir), newFiles) // the only error is that of the pattern
	for _, name := range left {
		_ = os.Remove(filepath.Join(dir, name)) // it is of no use, and does no harm
	}
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text := make([]byte, maxSeqBytes)
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	s.last, err = strconv.ParseInt(strings.TrimSpace(string(text[:n])), 10, 64)
	if err != nil || s.last < 0 || s.last > maxSeq {
		s.last, s.torn = 0, true
		return s, os.Rename(s.path, filepath.Join(dir, tornFile))
	}
	return s, nil
}

// Torn returns the path of the file that NewSigner set aside, "" without one.
func (s *Signer) Torn() string {
	if !s.torn {
		return ""
	}
	return filepath.Join(filepath.Dir(s.path), tornFile)
}

// Sign implements ports.Signer. The same claim makes the same record.
func (s *Signer) Sign(c ports.Claim) ([]byte, error) {
	p, err := marshal(&c)
	if err != nil {
		return nil, fmt.Errorf("sign a record: %w", err)
	}
	e, err := record.Seal(payload(p), s.key)
	if err != nil {
		return nil, fmt.Errorf("sign a record: %w", err)
	}
	return e.Marshal()
}

// Chain implements ports.Signer.
func (s *Signer) Chain(steps int) []ports.Link {
	links := make([]ports.Link, steps+1)
	_, _ = rand.Read(links[steps][:]) // which never fails
	for i := steps; i > 0; i-- {
		links[i-1] = before(links[i], 1)
	}
	return links
}

// Seq implements ports.Signer.
func (s *Signer) Seq(atLeast int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(atLeast, s.last+1)
	if s.path == "" {
		return s.last, nil
	}
	if err := s.keep(); err != nil {
		return s.last, fmt.Errorf("keep the number of the last record: %w", err)
	}
	return s.last, nil
}

// keep writes the number whole or not at all.
func (s *Signer) keep() error {
	f, err := os.CreateTemp(filepath.Dir(s.path), newFiles)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(strconv.FormatInt(s.last, 10) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), s.path)
}
