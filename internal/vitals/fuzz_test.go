package vitals

import "testing"

// FuzzPage: Whatever a worker writes into its page, the texts that the supervisor reads from it are
// names of methods.
func FuzzPage(f *testing.F) {
	f.Add([]byte{}, 0)
	f.Add([]byte{1, 0, 0, 0, 3, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255}, -1)
	f.Add([]byte{1, 0, 0, 0, 20, 0, 0, 0}, 1)
	page, file, err := New(2)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { page.Close(); file.Close() })
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		// data goes into both parts of the page: the header with the threads, and the
		// sessions.
		clear(page.mem)
		copy(page.mem, data)
		copy(page.mem[headerBytes:], data)
		for thread, stay := range page.Inside() {
			if thread < 0 || thread >= Threads || stay.Sequence%2 == 0 ||
				stay.Method != "" && !Known(stay.Method) {
				t.Fatalf("Inside returns thread %d with %+v: the number, the "+
					"Sequence (which must be odd) or the method is wrong",
					thread, stay)
			}
		}
		s, err := page.Session(n)
		if (err == nil) != (n == 0 || n == 1) {
			t.Fatalf("the page has 2 sessions, and Session(%d) returns the error %v", n,
				err)
		}
		if err != nil {
			return
		}
		s.MidMessage()
		if method, _ := s.InFlight(); method != "" && !Known(method) {
			t.Fatalf("InFlight returns %q, which is not the name of a method", method)
		}
	})
}
