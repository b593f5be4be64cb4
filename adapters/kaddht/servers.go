package kaddht

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/ports"
)

// maxServers bounds the list of servers: a thousand natives, and as many nodes that are nothing else, at
// 200 B each. When it is full, a new server displaces any other that does not follow this native: a flood
// mostly displaces itself.
const maxServers = 2000

// forgetShare is the pause after which a server is forgotten that is gone, one in so many of askEvery. With the
// usual times it is asked five times within three minutes: whoever it has named as its address bears those dials.
const forgetShare = 8

// server is a server of the DHT that this node has met: it has identified itself, or answered.
type server struct {
	id    peer.ID
	name  ports.PeerID
	place place
	lane  lane
	// unawaited says that no put waits for its answer: it has refused the last puts, each of them, or it is
	// slow.
	unawaited atomic.Bool

	// These are guarded by servers.mu.
	askAt time.Time // when the survey asks it
	// pause is how long this node waits after the next failure of a put; 0 after a put that it took.
	pause    time.Duration
	ailing   bool // it is put to no more until it answers
	stranger bool // as the list has it
}

// place is a position in the key space: the SHA-256 of a key or a peer, as numbers.
type place [4]uint64

func placeOf(key string) (p place) {
	sum := sha256.Sum256([]byte(key))
	for i := range p {
		p[i] = binary.BigEndian.Uint64(sum[8*i:])
	}
	return p
}

// closer reports whether p is closer to the place to than q is, by XOR.
func (p *place) closer(q, to *place) bool {
	for i := range p {
		if a, b := p[i]^to[i], q[i]^to[i]; a != b {
			return a < b
		}
	}
	return false
}

// listed is a server as puts see it. The places are side by side, since each put compares all of them.
type listed struct {
	place    place
	stranger bool
	*server
}

// servers is the whole list of the servers that this node has met. A routing table has 20 peers of each
// distance, so it misses servers that are near a key and far from this node. All methods may be called
// concurrently.
type servers struct {
	// follows reports whether a server is a native that follows this native, and shows a view of its own.
	follows func(peer.ID, ports.PeerID) bool
	// firstAsk is the time within which a new server is asked, and askEvery that between two questions.
	// firstPause is the pause after a failure; it doubles up to askEvery.
	firstAsk, askEvery, firstPause time.Duration

	// sooner receives a value when the survey has a new server to ask.
	sooner chan struct{}

	mu  sync.Mutex
	all map[peer.ID]*server
	// list has the servers that are well. Puts read it without a lock, and it never changes.
	list      atomic.Pointer[[]listed]
	strangers atomic.Int64
}

func newServers(follows func(peer.ID, ports.PeerID) bool, ttl time.Duration) *servers {
	s := &servers{
		follows: follows, all: make(map[peer.ID]*server), sooner: make(chan struct{}, 1),
		firstAsk: min(ttl, time.Minute), askEvery: min(10*ttl, 10*time.Minute), firstPause: min(ttl/6, 10*time.Second),
	}
	s.list.Store(new([]listed))
	return s
}

// saw takes in that p is a server that answers, or has identified itself. It reports whether it is a
// stranger that was not known, or was ailing. answered says that it is not to be asked soon.
func (s *servers) saw(p peer.ID, answered bool) (stranger bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.all[p]
	news := v == nil || v.ailing
	if v == nil {
		s.makeRoom()
		v = &server{id: p, name: ports.PeerID(p.String()), place: placeOf(string(p))}
		s.all[p] = v
		s.askIn(v, rand.N(s.firstAsk))
	}
	v.ailing = false
	if answered {
		s.askIn(v, s.askEvery*3/4+rand.N(s.askEvery/2))
	}
	if news || v.stranger == s.follows(p, v.name) {
		s.recount()
	}
	return news && v.stranger
}

// makeRoom removes a server if the list is full. The caller holds the lock.
func (s *servers) makeRoom() {
	if len(s.all) < maxServers {
		return
	}
	var victim peer.ID
	for id, v := range s.all {
		if victim = id; v.stranger {
			break
		}
	}
	delete(s.all, victim)
}

// failed takes in that v does not answer: it is put to no more until it does.
func (s *servers) failed(v *server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest(v)
	s.recount()
}

// rest has v asked after a pause, twice as long as the last. The caller holds the lock.
func (s *servers) rest(v *server) {
	v.pause = min(max(s.firstPause, 2*v.pause), s.askEvery)
	v.ailing = true
	s.askIn(v, v.pause)
}

// askIn has the survey ask v after d. The caller holds the lock.
func (s *servers) askIn(v *server, d time.Duration) {
	v.askAt = time.Now().Add(d)
	signal(s.sooner)
}

// took takes in that v has taken a put.
func (s *servers) took(v *server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.pause = 0
}

// gone takes in that the connection to p has ended: it is put to no more until it is connected again, or
// answers.
func (s *servers) gone(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.all[p]; v != nil && !v.ailing {
		v.ailing = true
		s.askIn(v, max(s.firstPause, v.pause))
		s.recount()
	}
}

// silent takes in that p did not answer the survey. It is asked again, also while it may restart. After some
// minutes it is forgotten, unless it is connected.
func (s *servers) silent(p peer.ID, connected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.all[p]
	switch {
	case v == nil:
		return
	case connected, v.pause < s.askEvery/forgetShare:
		s.rest(v)
	default:
		delete(s.all, p)
	}
	s.recount()
}

// keep removes the servers that keep does not want.
func (s *servers) keep(keep func(peer.ID) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.all {
		if !keep(id) {
			delete(s.all, id)
		}
	}
	s.recount()
}

// refresh takes in that other natives follow this native now. It reports whether a server is a stranger
// that was none.
func (s *servers) refresh() (stranger bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := *s.list.Load()
	s.recount()
	for _, v := range was {
		stranger = stranger || v.server.stranger && !v.stranger
	}
	return stranger
}

// recount makes the list anew. The caller holds the lock.
func (s *servers) recount() {
	list, strangers := make([]listed, 0, len(s.all)), 0
	for _, v := range s.all {
		v.stranger = !s.follows(v.id, v.name)
		if v.ailing {
			continue
		}
		if v.stranger {
			strangers++
		}
		list = append(list, listed{v.place, v.stranger, v})
	}
	s.list.Store(&list)
	s.strangers.Store(int64(strangers))
}

// near returns the strangers among the servers that are closest to key.
func (s *servers) near(key string) (strangers []*server) {
	if s.strangers.Load() == 0 {
		return nil
	}
	list, to := *s.list.Load(), placeOf(key)
	var near [replicas]*listed
	n := 0
	for i := range list {
		v := &list[i]
		if n == replicas && !v.place.closer(&near[n-1].place, &to) {
			continue
		}
		n = min(n+1, replicas)
		j := n - 1
		for ; j > 0 && v.place.closer(&near[j-1].place, &to); j-- {
			near[j] = near[j-1]
		}
		near[j] = v
	}
	for _, v := range near[:n] {
		if v.stranger {
			strangers = append(strangers, v.server)
		}
	}
	return strangers
}

// due returns at most n servers that the survey has to ask now, and when the next is due.
func (s *servers) due(n int) (now []peer.ID, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := time.Now()
	next = at.Add(s.askEvery)
	for id, v := range s.all {
		if len(now) < n && !at.Before(v.askAt) {
			now = append(now, id)
		} else if v.askAt.Before(next) {
			next = v.askAt
		}
	}
	return now, next
}

// knows reports whether p is in the list.
func (s *servers) knows(p peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[p] != nil
}

func (s *servers) len() int { return len(*s.list.Load()) }
