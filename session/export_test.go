package session

// TrustDepth counts the stores that stand behind one another, the current one
// included.
func (s *Session) TrustDepth() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 1
	for t := s.trust; t.instead != nil; t = t.instead {
		n++
	}
	return n
}
