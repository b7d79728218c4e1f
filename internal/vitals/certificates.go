package vitals

import (
	"math/big"
	"time"
)

// Behind the counters, the page has slots for the certificates that a worker's servers show. So the
// administrator can see when these certificates expire. A slot has 4 words of 64 bits. The first
// word is the time when the certificate expires, in Unix time, or 0 if the slot is empty. The other
// words are the certificate's serial number.
//
// The worker is not trusted. So the number of slots is fixed, and the reader checks each value.

// Certificates is the number of slots.
const Certificates = 16

const (
	certificatesAt   = 2560
	certificateBytes = 32
	serialWords      = 3
	// lastEnd is the last second of the year 9999. No certificate expires later (RFC 5280).
	lastEnd = 253402300799
)

// A Certificate is a certificate that a server shows.
type Certificate struct {
	Serial   string // hexadecimal, at most 48 digits, without leading zeros
	NotAfter int64  // Unix time
}

// ShowCertificate puts a certificate in a slot. It does nothing if the serial is too long or
// negative, or if the certificate expires before 1970 or after 9999. Two goroutines must not write
// to the same slot at the same time.
func (p *Page) ShowCertificate(slot int, serial *big.Int, notAfter time.Time) {
	var b [8 * serialWords]byte
	end := notAfter.Unix()
	if serial.Sign() < 0 || serial.BitLen() > 8*len(b) || end <= 0 || end > lastEnd {
		return
	}
	p.HideCertificate(slot)
	serial.FillBytes(b[:])
	for i := range serialWords {
		word := new(big.Int).SetBytes(b[8*i : 8*i+8]).Uint64()
		p.certificate(slot, 1+i).Store(word)
	}
	p.certificate(slot, 0).Store(uint64(end))
}

// HideCertificate makes a slot empty.
func (p *Page) HideCertificate(slot int) { p.certificate(slot, 0).Store(0) }

// ShownCertificates returns the certificates that the worker shows. It leaves out a slot that the
// worker is writing.
func (p *Page) ShownCertificates() (list []Certificate) {
	for slot := range Certificates {
		end := p.certificate(slot, 0).Load()
		serial := new(big.Int)
		for i := range serialWords {
			word := new(big.Int).SetUint64(p.certificate(slot, 1+i).Load())
			serial.Lsh(serial, 64).Or(serial, word)
		}
		if end == 0 || end > lastEnd || p.certificate(slot, 0).Load() != end {
			continue
		}
		list = append(list, Certificate{serial.Text(16), int64(end)})
	}
	return list
}
