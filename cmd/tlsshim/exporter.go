package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"tlsd/internal/admin"
)

// The exporter is an HTTP server in tlsshim, so that the daemon needs none. It asks the daemon at
// each request, and keeps no metrics. A client that reaches the exporter's address can only read
// the metrics.

const (
	// scrapeTime is the default timeout of a question to the daemon. It is shorter than the
	// 10 s for which Prometheus waits by default.
	scrapeTime = 5 * time.Second
	// maxScrapes limits the requests that are answered at the same time.
	maxScrapes = 4
)

// exporter is the subcommand. It runs until ctx is done, or until SIGTERM.
func (c *command) exporter(ctx context.Context, _ []string) error {
	if c.listen == "" {
		return misuse("exporter: want --listen ADDRESS, such as 127.0.0.1:9911")
	}
	if _, _, err := net.SplitHostPort(c.listen); err != nil {
		return misuse("exporter: --listen %s: %v; want HOST:PORT, such as 127.0.0.1:9911",
			c.listen, err)
	}
	if c.timeout == 0 {
		c.timeout = scrapeTime
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", c.listen)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: c.handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	fmt.Fprintf(c.stderr, "tlsshim: metrics at http://%s/metrics\n", l.Addr())
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if server.Shutdown(last) != nil {
		_ = server.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// The type failure remembers why the previous question to the daemon failed.
type failure struct {
	mu   sync.Mutex
	last string // the reason; "" if it did not fail; guarded by mu
}

// changed() notes the outcome of a question to the daemon. It prints the reason of a failure, but
// not the same reason twice in a row.
func (f *failure) changed(w io.Writer, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	why := ""
	if err != nil {
		why = clean(err.Error())
	}
	if why != "" && why != f.last {
		fmt.Fprintln(w, "tlsshim: no metrics:", why)
	}
	f.last = why
}

// handler makes the handler of HTTP requests.
func (c *command) handler() http.Handler {
	slots := make(chan struct{}, maxScrapes)
	var failure failure
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			http.Error(w, "too many requests at the same time",
				http.StatusServiceUnavailable)
			return
		}
		var families []admin.Family
		up := 1.0
		err := c.request(r.Context(), admin.MethodMetrics, nil, &families)
		if errors.Is(err, context.Canceled) {
			return // the client is gone
		}
		failure.changed(c.stderr, err)
		if err != nil {
			families, up = nil, 0
		}
		families = append(families, admin.Family{Name: "tlsd_up",
			Help: "1 if tlsd has answered, else 0.", Type: "gauge",
			Samples: []admin.Sample{{Value: up}}})
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write(exposition(families)) // an error means that the client is gone
	})
	return mux
}
