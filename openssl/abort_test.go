package openssl_test

import (
	"crypto/tls"
	"errors"
	"io"
	"syscall"
	"testing"

	"tlsd/openssl"
)

func TestAbortSendsNoAlert(t *testing.T) {
	t.Parallel()
	forSetups(t, func(t *testing.T, c *openssl.Conn, peer *tls.Conn) {
		if err := c.Abort(); err != nil {
			t.Fatal(err)
		}
		// If the stream ends between two records, crypto/tls reports io.EOF, with or
		// without close_notify. So the test looks at the records. In TLS 1.3 a record with
		// an alert has the type of data, and 19 bytes: 2 of the alert, 1 for the real type
		// and 16 for the tag.
		all, err := io.ReadAll(peer.NetConn())
		if err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
		for len(all) >= 5 {
			size := int(all[3])<<8 | int(all[4])
			if all[0] == 21 || all[0] == 23 && size == 2+1+16 {
				t.Errorf("Abort has sent an alert: a record of type %d with %d "+
					"bytes", all[0], size)
			}
			all = all[min(len(all), 5+size):]
		}
		if err := c.Close(); err != nil {
			t.Errorf("Close after Abort: %v", err)
		}
	})
}
