// Package tap is a relay for tests. It stands between a client and a server of TLS, and passes on
// their records one by one. It has no keys, and sees only the visible parts of a record.
//
//	r := tap.Start(t, port)      // a connection to r.Port reaches port
//	r.Hold(tap.FromServer)       // nothing more passes in this direction…
//	r.Release(tap.FromServer)    // … until now
//	r.Spoil(tap.FromClient)      // the next encrypted record in this direction is damaged
//	r.HoldAfterHandshake()       // calls Hold(FromServer) when the client's handshake has ended
//	r.Records(tap.FromServer)    // the records that have passed so far
//
// If one side closes or resets its connection, the relay does the same to the other side. If the
// relay still holds records of the side that has closed, it first waits until they have passed.
//
// A relay ends with its test, and waits for its goroutines. Start ends the test if it cannot
// listen. Later failures are reported at the end of the test. All functions are safe for concurrent
// use.
package tap

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A Direction is one of the two directions of records.
type Direction int

const (
	FromClient Direction = iota
	FromServer
)

// The types of records (RFC 8446 section 5.1). In TLS 1.3 all encrypted records look like
// application data, also those of the handshake.
const (
	ChangeCipherSpec = 20
	Alert            = 21
	Handshake        = 22
	ApplicationData  = 23
)

const serverHello = 2 // the type of the handshake message ServerHello (RFC 8446 section 4)

// A Record is a record that has passed.
type Record struct {
	Type  byte
	Len   int    // bytes after the header, with the overhead of encryption
	Hello []byte // the ServerHello at the beginning of the record; nil: none
}

// HRR says whether the record is a HelloRetryRequest.
func (r Record) HRR() bool {
	return len(r.Hello) > 34 && bytes.Equal(r.Hello[2:34], helloRetryRequest)
}

// PSK says whether the record is a ServerHello that resumes a TLS 1.3 session (RFC 8446 section
// 4.2.11).
func (r Record) PSK() bool {
	const preSharedKey = 41
	h := r.Hello
	if len(h) < 35 || len(h) < 35+int(h[34])+5 {
		return false
	}
	// The extensions come after session id, suite, compression, and their own length.
	for h = h[35+int(h[34])+5:]; len(h) >= 4; {
		if binary.BigEndian.Uint16(h) == preSharedKey {
			return true
		}
		n := 4 + int(binary.BigEndian.Uint16(h[2:]))
		if n > len(h) {
			return false
		}
		h = h[n:]
	}
	return false
}

// helloRetryRequest is the value of the field random that marks a ServerHello as a
// HelloRetryRequest (RFC 8446 section 4.1.3).
var helloRetryRequest, _ = hex.DecodeString(
	"cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")

// A Relay passes on the connections of one port.
type Relay struct {
	Port int

	l      *net.TCPListener
	target string
	work   sync.WaitGroup

	mu      sync.Mutex // guards all below
	changed *sync.Cond
	ended   bool
	conns   []net.Conn
	held    [2]bool
	holding bool // HoldAfterHandshake waits for the client's handshake
	spoil   [2]bool
	records [2][]Record
	failed  error
}

// Start begins to relay to a port of 127.0.0.1.
func Start(tb testing.TB, port int) *Relay {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &Relay{l: l.(*net.TCPListener), Port: l.Addr().(*net.TCPAddr).Port,
		target: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	r.changed = sync.NewCond(&r.mu)
	r.work.Go(r.accept)
	tb.Cleanup(func() {
		r.mu.Lock()
		r.ended = true
		for _, c := range r.conns {
			c.Close()
		}
		r.changed.Broadcast()
		r.mu.Unlock()
		r.l.Close()
		r.work.Wait()
		if r.failed != nil {
			tb.Errorf("tap: %v", r.failed)
		}
	})
	return r
}

// Hold stops a direction until Release.
func (r *Relay) Hold(d Direction) { r.hold(d, true) }

// HoldAfterHandshake stops the server's direction after the client's first encrypted record. In TLS
// 1.3 that record ends the handshake, and tickets come after it.
func (r *Relay) HoldAfterHandshake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holding = true
}

// Release ends Hold.
func (r *Relay) Release(d Direction) { r.hold(d, false) }

func (r *Relay) hold(d Direction, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[d] = on
	r.changed.Broadcast()
}

// Spoil damages the next record of application data in a direction.
func (r *Relay) Spoil(d Direction) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spoil[d] = true
}

// Records returns the records that have passed in a direction, of all connections.
func (r *Relay) Records(d Direction) []Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Record(nil), r.records[d]...)
}

// Await waits until ok accepts the records that have passed in a direction. It says whether that
// happened in time.
func (r *Relay) Await(d Direction, bound time.Duration, ok func([]Record) bool) bool {
	late := false
	timer := time.AfterFunc(bound, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		late = true
		r.changed.Broadcast()
	})
	defer timer.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !ok(r.records[d]) {
		if late || r.ended {
			return false
		}
		r.changed.Wait()
	}
	return true
}

func (r *Relay) accept() {
	for {
		client, err := r.l.AcceptTCP()
		if err != nil {
			return // it is closed
		}
		server, err := net.Dial("tcp", r.target)
		r.mu.Lock()
		if err != nil || r.ended {
			client.Close()
			if err == nil {
				server.Close()
			} else if !r.ended {
				r.failed = err
			}
			r.mu.Unlock()
			continue
		}
		r.conns = append(r.conns, client, server)
		r.mu.Unlock()
		r.work.Go(func() { r.pass(FromClient, client, server.(*net.TCPConn)) })
		r.work.Go(func() { r.pass(FromServer, server.(*net.TCPConn), client) })
	}
}

// pass carries records from one side to the other, until one side closes the connection.
func (r *Relay) pass(d Direction, from, to *net.TCPConn) {
	for {
		record, err := next(from)
		if err == nil {
			record = r.see(d, record)
		} else {
			r.await(d)
		}
		if _, werr := to.Write(record); err == nil && werr != nil {
			return // the receiver has closed; the other goroutine handles this
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			to.CloseWrite() // if this fails, the connection is gone already
			return
		case errors.Is(err, syscall.ECONNRESET):
			for _, c := range []*net.TCPConn{from, to} {
				c.SetLinger(0) // Close then sends a reset
				c.Close()
			}
			return
		default:
			return // the test has ended
		}
	}
}

// next reads a record. If the stream ends before the record is complete, next returns an error and
// the part that has come.
func next(from io.Reader) ([]byte, error) {
	record := make([]byte, 5, 5+1<<14+256)
	n, err := io.ReadFull(from, record)
	if err != nil {
		return record[:n], err
	}
	body := int(binary.BigEndian.Uint16(record[3:]))
	record = append(record, make([]byte, body)...)
	n, err = io.ReadFull(from, record[5:])
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return record[:5+n], err
}

// await waits while a direction is held. r.mu must not be held.
func (r *Relay) await(d Direction) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.held[d] && !r.ended {
		r.changed.Wait()
	}
}

// see waits until a record may pass, and notes the record. If Spoil was called, it damages the
// record. It returns the bytes to pass on.
func (r *Relay) see(d Direction, record []byte) []byte {
	r.await(d)
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := Record{Type: record[0], Len: len(record) - 5}
	if seen.Type == Handshake && len(record) > 9 && record[5] == serverHello {
		if end := 9 + int(record[7])<<8 + int(record[8]); record[6] == 0 &&
			end <= len(record) {
			seen.Hello = bytes.Clone(record[9:end])
		}
	}
	r.records[d] = append(r.records[d], seen)
	if r.holding && d == FromClient && seen.Type == ApplicationData {
		r.holding, r.held[FromServer] = false, true
	}
	if r.spoil[d] && record[0] == ApplicationData {
		r.spoil[d] = false
		record[len(record)-1] ^= 1
	}
	r.changed.Broadcast()
	return record
}
