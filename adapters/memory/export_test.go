package memory

// Len returns the number of entries, including expired ones.
func (s *Space) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.values)
}
