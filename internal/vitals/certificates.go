package vitals

import (
	"math/big"
	"time"
)

// The certificates that a worker's servers show lie in the page behind the counters, so that the
// administrator can see when they expire. A place has 4 words of 64 bits: the end of the
// certificate in Unix time, or 0 for an empty place, and its serial number.
//
// A worker can claim what it likes. So it has few places, and what it claims is bounded.

// Certificates is how many places there are.
const Certificates = 16

const (
	certificatesAt   = 2560
	certificateBytes = 32
	serialWords      = 3
	// lastEnd is the last second of the year 9999, after which no certificate ends (RFC 5280).
	lastEnd = 253402300799
)

// A Certificate is one that a server shows.
type Certificate struct {
	Serial   string // hexadecimal, at most 48 digits, without zeros before it
	NotAfter int64  // Unix time
}

// ShowCertificate puts a certificate in a place. It does nothing if the certificate's serial is
// longer than allowed, or below zero, or its end is before 1970 or after 9999. No two goroutines
// write to the same place.
func (p *Page) ShowCertificate(place int, serial *big.Int, notAfter time.Time) {
	var b [8 * serialWords]byte
	end := notAfter.Unix()
	if serial.Sign() < 0 || serial.BitLen() > 8*len(b) || end <= 0 || end > lastEnd {
		return
	}
	p.HideCertificate(place)
	serial.FillBytes(b[:])
	for i := range serialWords {
		word := new(big.Int).SetBytes(b[8*i : 8*i+8]).Uint64()
		p.certificate(place, 1+i).Store(word)
	}
	p.certificate(place, 0).Store(uint64(end))
}

// HideCertificate makes a place empty.
func (p *Page) HideCertificate(place int) { p.certificate(place, 0).Store(0) }

// ShownCertificates are those that the worker shows. One that is being replaced is left out.
func (p *Page) ShownCertificates() (list []Certificate) {
	for place := range Certificates {
		end := p.certificate(place, 0).Load()
		serial := new(big.Int)
		for i := range serialWords {
			word := new(big.Int).SetUint64(p.certificate(place, 1+i).Load())
			serial.Lsh(serial, 64).Or(serial, word)
		}
		if end == 0 || end > lastEnd || p.certificate(place, 0).Load() != end {
			continue
		}
		list = append(list, Certificate{serial.Text(16), int64(end)})
	}
	return list
}
