package modules

// Unready returns what /readyz says: why each module that is not ready is not.
func (n *Node) Unready() map[string]string { return n.health.reasons() }
