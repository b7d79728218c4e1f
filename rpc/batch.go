package rpc

import (
	"bytes"
	"encoding/json"
	"sync"

	"tlsd/rpc/wire"
)

// A batch collects the answers to a JSON-RPC batch until all have come.
type batch struct {
	mu       sync.Mutex // guards the other fields
	missing  int        // the number of answers to come, plus 1 while queueBatch runs
	buffered int        // how many bytes of server.buffered are for this batch
	answers  [][]byte
}

func (b *batch) add() {
	b.mu.Lock()
	b.missing++
	b.mu.Unlock()
}

// addBuffered is called when n bytes of server.buffered are for the batch. When the batch is
// complete, batchDone subtracts them from server.buffered.
func (b *batch) addBuffered(n int) {
	b.mu.Lock()
	b.buffered += n
	b.mu.Unlock()
}

// queueBatch queues the valid calls of a batch, and answers the invalid ones.
func (st *stream) queueBatch(line []byte) {
	elements := splitBatch(line)
	switch {
	case len(elements) == 0:
		st.refuse(invalid("a batch has at least one call"), nil)
		return
	case len(elements) > wire.MaxBatch:
		st.refuse(overLimit("a batch has at most %d calls; send several batches",
			wire.MaxBatch), nil)
		return
	}
	b := &batch{missing: 1} // the 1 keeps the batch incomplete until all its calls are known
	for _, e := range elements {
		c, why, _ := parse(e)
		if c == nil {
			b.add()
			st.refuse(invalid(why), b)
			continue
		}
		if c.id != nil {
			b.add()
		}
		c.batch = b
		st.queue = append(st.queue, c)
	}
	_ = st.batchDone(b, nil)
}

// splitBatch returns the elements of an array, which must be valid JSON. A line has room for
// millions of elements, so splitBatch stops after wire.MaxBatch + 1 of them.
func splitBatch(line []byte) []json.RawMessage {
	var elements []json.RawMessage
	d := json.NewDecoder(bytes.NewReader(line))
	d.Token() // the bracket
	for d.More() && len(elements) <= wire.MaxBatch {
		var e json.RawMessage
		if d.Decode(&e) != nil {
			break
		}
		elements = append(elements, e)
	}
	return elements
}

// batchDone notes that an answer has come, or that queueBatch has ended (answer is nil). When no
// answer is missing any more, it writes all answers as one array.
func (s *server) batchDone(b *batch, answer []byte) error {
	b.mu.Lock()
	b.missing--
	if answer != nil {
		b.answers = append(b.answers, answer)
	}
	complete := b.missing == 0
	if complete {
		s.buffered.Add(-int64(b.buffered))
	}
	b.mu.Unlock()
	if !complete || len(b.answers) == 0 {
		return nil
	}
	out := append([]byte("["), bytes.Join(b.answers, []byte(","))...)
	return s.write(append(out, ']'))
}
