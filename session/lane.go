package session

import "context"

// Calls on a connection handle run in lanes. The comment of the type Call describes them.

// onConnection makes a call on a connection handle. The call runs after the earlier calls of the
// given lanes. It belongs to the last of these lanes, so later calls of that lane wait for it. s.mu
// must be held.
func (s *Session) onConnection(op string, h Handle, lanes func(*connection) []*<-chan struct{},
	run func(context.Context, *connection) (any, error)) *Call {
	c, err := s.connection(h)
	if err != nil {
		return s.refuse(op, h, err)
	}
	call := s.newCall(op, h, func(ctx context.Context) (any, error) { return run(ctx, c) })
	tails := lanes(c)
	for _, t := range tails {
		call.after = append(call.after, *t)
	}
	call.tail = tails[len(tails)-1]
	*call.tail = call.done
	return call
}

// beside makes a call on a connection handle. The call runs after the earlier calls of the given
// lanes, but no later call waits for it. s.mu must be held.
func (s *Session) beside(op string, h Handle, lanes func(*connection) []*<-chan struct{},
	run func(context.Context, *connection) (any, error)) *Call {
	c, err := s.connection(h)
	if err != nil {
		return s.refuse(op, h, err)
	}
	call := s.newCall(op, h, func(ctx context.Context) (any, error) { return run(ctx, c) })
	for _, t := range lanes(c) {
		call.after = append(call.after, *t)
	}
	return call
}

func controlLane(c *connection) []*<-chan struct{} { return []*<-chan struct{}{&c.controlTail} }

func readLane(c *connection) []*<-chan struct{} {
	return []*<-chan struct{}{&c.controlTail, &c.readTail}
}

func writeLane(c *connection) []*<-chan struct{} {
	return []*<-chan struct{}{&c.controlTail, &c.writeTail}
}

// instant marks a call that waits for nothing but earlier calls.
func (c *Call) instant() *Call {
	c.waits = false
	return c
}
