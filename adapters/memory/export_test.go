package memory

// Len returns how many entries are held, expired ones included.
func (s *Space) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.values)
}
