package memory

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/ports"
)

// backlog bounds the announcements that wait for a listener. More are lost, as in package
// gossip.
const backlog = 4096

var errAnnouncerClosed = errors.New("the announcer is closed")

// Topic connects Announcers: each receives the announcements of all others.
type Topic struct {
	mu      sync.Mutex
	members map[*Announcer]bool
}

// NewTopic returns an empty Topic.
func NewTopic() *Topic { return &Topic{members: make(map[*Announcer]bool)} }

// Announcer announces PeerIDs within this process. Alone in its Topic, it serves a native
// without gossip.
type Announcer struct {
	topic *Topic
	id    ports.PeerID
	// listener is the running Listen, nil without one; the Topic's lock guards it.
	listener *listener
}

// listener is a Listen: its waiting announcements, and its stop.
type listener struct {
	waiting chan ports.Announcement
	stop    func()
}

var _ ports.Announcer = (*Announcer)(nil)

// Join adds an Announcer to the Topic, which announces in the name of id.
func (t *Topic) Join(id ports.PeerID) *Announcer {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := &Announcer{topic: t, id: id}
	t.members[a] = true
	return a
}

// Announce implements ports.Announcer.
func (a *Announcer) Announce(_ context.Context, id ports.PeerID) error {
	if p, err := peer.Decode(string(id)); err != nil || p.String() != string(id) {
		return fmt.Errorf("announce %.80q: not a PeerID in its canonical form", id)
	}
	t := a.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.members[a] {
		return errAnnouncerClosed
	}
	for other := range t.members {
		if other == a || other.listener == nil {
			continue
		}
		select {
		case other.listener.waiting <- ports.Announcement{PeerID: id, From: a.id}:
		default:
		}
	}
	return nil
}

// Listen implements ports.Announcer.
func (a *Announcer) Listen(hear func(ports.Announcement)) (stop func(), err error) {
	t := a.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !t.members[a]:
		return nil, errAnnouncerClosed
	case a.listener != nil:
		return nil, errors.New("already listening; stop the first Listen")
	}
	e := &listener{waiting: make(chan ports.Announcement, backlog)}
	ended, done := make(chan struct{}), make(chan struct{})
	e.stop = sync.OnceFunc(func() {
		close(ended)
		<-done
		t.mu.Lock()
		defer t.mu.Unlock()
		a.listener = nil
	})
	go func() {
		defer close(done)
		e.listen(ended, hear)
	}()
	a.listener = e
	return e.stop, nil
}

func (e *listener) listen(ended <-chan struct{}, hear func(ports.Announcement)) {
	for {
		select {
		case <-ended:
			return
		case announcement := <-e.waiting:
			select {
			case <-ended: // both were ready: the end wins
				return
			default:
				hear(announcement)
			}
		}
	}
}

// Close stops the listener and leaves the Topic. The Announcer then returns errors. It may be
// called twice.
func (a *Announcer) Close() error {
	a.topic.mu.Lock()
	delete(a.topic.members, a)
	e := a.listener
	a.topic.mu.Unlock()
	if e != nil {
		e.stop()
	}
	return nil
}
