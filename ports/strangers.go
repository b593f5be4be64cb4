package ports

// Strangers is a Store or an Announcer that knows the nodes that it reaches. Natives that follow this
// native hear of renewals by that. So renewals are put or announced only for the others. Joins,
// changes and leaves are always put and announced. A Store or an Announcer without this reaches
// strangers.
type Strangers interface {
	// Strangers reports whether it reaches a node that does not follow this native, or may reach such a
	// node. It is called for each renewal, under locks: it must not block.
	Strangers() bool
}

// Audience is an Announcer that knows which nodes are connected to this node and hear its
// announcements. Natives tell each other. If all of them tell the same, their announcements reach no
// other node.
type Audience interface {
	// Audience is a sum over the PeerIDs of those nodes and of this node, in no order; 0 is unknown. It
	// must not block.
	Audience() uint64
}
