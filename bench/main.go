// Bench compares tlsd with the other ways in which a program can speak TLS: libssl in the program's
// own process, and the proxies stunnel, haproxy and socat.
//
//	go run ./bench [-quick] [-only ROW,…] [-rounds N] [-json FILE]
//	go run ./bench -from FILE[,FILE…] [-text FILE] [-charts FOLDER] [-json FILE]
//
// It compiles the programs in src and makes a certificate. It starts one TLS server (the sink), one
// tlsd and the proxies, all on loopback. The contestants do the same work in turn, for several
// rounds. Then it prints tables of the medians, the ratios and the goals, and writes all results as
// JSON. Besides the comparison it measures each step from the script to the wire (the rows hop-…),
// and how the cost grows with size, connections and sessions (the rows growth-…).
//
// With -from it measures nothing. It makes tables and charts from the results of an earlier run.
//
// Promises:
//
//   - In the comparison, the client or the sink checks every byte on a measured connection. If a
//     byte is missing or wrong, the measurement has no result.
//   - A ratio compares two results of the same round, because the speed of a machine changes while
//     the benchmark runs. The tables have the median of the rounds' ratios.
//   - A contestant that is not installed is reported as absent. A goal that needs this contestant
//     is reported as open.
//   - The benchmark is no test: its exit status does not depend on the goals. The status is 1 if
//     something could not be measured, read or written, and 2 if the command line is wrong.
//   - When it ends, all processes that it has started have ended.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	quick    bool
	only     string
	rounds   int
	sessions int
	json     string
	bin      string
	date     string

	from   string
	text   string
	charts string
}

// The kernel kills the sink, tlsd and the proxies when the thread that started them ends
// (PR_SET_PDEATHSIG of prctl(2); see launch). So only the main thread starts processes, because the
// main thread lasts as long as the program.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) > 1 && os.Args[1] == partnerArg { // started by src/bare.c
		if err := runPartner(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.BoolVar(&o.quick, "quick", false, "fewer, shorter rounds and fewer idle connections")
	flag.StringVar(&o.only, "only", "", "measure only the rows whose names begin with one of "+
		"these, with commas between them")
	flag.IntVar(&o.rounds, "rounds", 0, "number of rounds (default 9, with -quick 3)")
	flag.StringVar(&o.json, "json", "", "file for the results (default bench/out/bench.json)")
	flag.StringVar(&o.bin, "bin", "", "folder with tlsd and TlsPlugin.so (default bin)")
	flag.StringVar(&o.date, "date", time.Now().UTC().Format(time.RFC3339),
		"the date to note in the results")
	flag.IntVar(&o.sessions, "sessions", 0, "the largest number of sessions (default "+
		"1000, with -quick 100)")
	flag.StringVar(&o.from, "from", "", "measure nothing, and take the results from this "+
		"file, or from several with commas between them: "+
		"a later file adds the rows that the earlier files lack")
	flag.StringVar(&o.text, "text", "", "write the tables into this Markdown file, between "+
		"its marks <!-- bench: … --> and <!-- /bench -->")
	flag.StringVar(&o.charts, "charts", "", "write the charts into this folder")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "bench: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM,
		syscall.SIGPIPE)
	defer stop()
	do := run
	if o.from != "" {
		do = present
	}
	if err := do(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures, and writes the results.
func run(ctx context.Context, o options) error {
	root, err := sourceTree()
	if err != nil {
		return err
	}
	if o.bin == "" {
		o.bin = filepath.Join(root, "bin")
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	if o.json == "" {
		o.json = filepath.Join(root, "bench/out/bench.json")
	}
	p := o.plan()
	list := works(p)
	if o.quick && o.only == "" {
		list = slices.DeleteFunc(list, func(w work) bool { return w.group == "growth" })
	}
	chosen, err := choose(list, o.only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tlsd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	say("compiling the programs")
	if err := compile(ctx, root, dir); err != nil {
		return err
	}
	then, began := cpuNow(), time.Now()
	r, err := measureAll(ctx, o.bin, dir, p, chosen)
	if err != nil {
		return err
	}
	r.Date = o.date
	r.Seconds = time.Since(began).Round(time.Second).Seconds()
	r.Machine, r.Load = machine(), cpuNow().loadSince(then)
	r.judge()
	if err := r.save(o.json); err != nil {
		return err
	}
	say("written to %s", o.json)
	if err := r.publish(o); err != nil {
		return err
	}
	if r.failures > 0 {
		return fmt.Errorf("%d measurements failed; see above", r.failures)
	}
	return nil
}

// plan returns the plan for these options.
func (o options) plan() plan {
	p := full
	if o.quick {
		p = quick
	}
	if o.rounds > 0 {
		p.rounds, p.budget = o.rounds, 0
	}
	if o.sessions > 0 {
		p.sessions = o.sessions
	}
	return p
}

// measureAll starts everything, measures, and ends everything.
func measureAll(ctx context.Context, bin, dir string, p plan, chosen []work) (*results, error) {
	a, err := openArena(ctx, bin, dir, p)
	if a != nil {
		defer a.close()
	}
	if err != nil {
		return nil, err
	}
	r := a.runRounds(ctx, p, chosen)
	r.Versions = a.versions(ctx)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("stopped: %w", err)
	}
	return r, nil
}

// sourceTree returns the nearest folder with a go.mod: the working directory or one above it.
func sourceTree() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("run it inside the source tree: there is no go.mod " +
				"here or above")
		}
		dir = filepath.Dir(dir)
	}
}

// choose returns the works that the option -only asks for. Each round then measures them, whatever
// their field every says. If a name in the option is the whole name of a row, it stands for this
// row only. Otherwise it stands for all rows whose names begin with it.
func choose(all []work, only string) ([]work, error) {
	if only == "" {
		return all, nil
	}
	var names []string
	for _, w := range all {
		for _, r := range w.rows {
			names = append(names, r.name)
		}
	}
	wanted := map[string]bool{}
	for _, want := range strings.Split(only, ",") {
		found := false
		for _, name := range names {
			if name == want || !slices.Contains(names, want) &&
				strings.HasPrefix(name, want) {
				wanted[name], found = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("-only %s: there is no such row; there are: %s",
				want, strings.Join(names, " "))
		}
	}
	all = slices.DeleteFunc(all, func(w work) bool {
		return !slices.ContainsFunc(w.rows, func(r row) bool { return wanted[r.name] })
	})
	for i := range all {
		all[i].every = 1
	}
	return all, nil
}

// say reports progress on stderr.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
