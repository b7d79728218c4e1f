package main

import (
	"testing"

	"tlsd/internal/admin"
)

func TestExpositionIsPrometheusText(t *testing.T) {
	t.Parallel()
	got := string(exposition([]admin.Family{
		{Name: "a_total", Help: "One\\two\nthree.", Type: "counter",
			Samples: []admin.Sample{
				{Value: 1 << 40},
				{Labels: map[string]string{"y": "v\"\\\n", "x": "é"},
					Value: .5},
			}},
		{Name: "h", Help: "H.", Type: "histogram", Samples: []admin.Sample{
			{Labels: map[string]string{"k": "v"}, Value: 2.5, Bounds: []float64{.1, 1},
				Counts: []uint64{1, 3}, Count: 4},
		}},
		{Name: "none", Help: "N.", Type: "gauge"},
	}))
	want := `# HELP a_total One\\two\nthree.
# TYPE a_total counter
a_total 1.099511627776e+12
a_total{x="é",y="v\"\\\n"} 0.5
# HELP h H.
# TYPE h histogram
h_bucket{k="v",le="0.1"} 1
h_bucket{k="v",le="1"} 3
h_bucket{k="v",le="+Inf"} 4
h_sum{k="v"} 2.5
h_count{k="v"} 4
# HELP none N.
# TYPE none gauge
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// If by mistake a histogram has more bounds than counts, the surplus bounds make no lines.
func TestExpositionOfAWrongHistogram(t *testing.T) {
	t.Parallel()
	got := string(exposition([]admin.Family{{Name: "h", Type: "histogram",
		Samples: []admin.Sample{{Bounds: []float64{1, 2, 3}, Counts: []uint64{1}}}}}))
	want := "# HELP h \n# TYPE h histogram\n" +
		"h_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 0\nh_sum 0\nh_count 0\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAmountsAndAgesAreForPeople(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 1023: "1023", 1024: "1.0KiB",
		5 << 20: "5.0MiB", 3 << 40: "3.0TiB", 5000 << 40: "5000.0TiB"} {
		if got := amount(n); got != want {
			t.Errorf("%d bytes are %s, want %s", n, got, want)
		}
	}
	for s, want := range map[float64]string{0.9: "0s", 59: "59s", 61: "1m01s", 3600: "1h00m",
		3 * 86400: "3d00h"} {
		if got := age(s); got != want {
			t.Errorf("%v seconds are %s, want %s", s, got, want)
		}
	}
}
