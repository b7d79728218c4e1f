package supervisor

import "tlsd/internal/admin"

// Metrics gives what is counted, for a monitor. Labels have few values, and none of them is a user, a process or a host.
func (s *Supervisor) Metrics() []admin.Family {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []admin.Family{
		{Name: "tlsd_sessions", Help: "Sessions now.", Type: "gauge", Samples: []admin.Sample{{Value: float64(s.sessions)}}},
	}
}
