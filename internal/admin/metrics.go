package admin

// Family is a metric with its samples, in Prometheus' sense.
type Family struct {
	Name    string   `json:"name"`
	Help    string   `json:"help"`
	Type    string   `json:"type"` // "counter", "gauge" or "histogram"
	Samples []Sample `json:"samples"`
}

// Sample is one value of a metric, or one histogram.
type Sample struct {
	Labels map[string]string `json:"labels,omitempty"`
	Value  float64           `json:"value"` // of a histogram: the sum of all observed values

	// These are for a histogram. The Bounds ascend. Counts has, for each of the Bounds, the
	// number of observed values up to it. Count is the number of all observed values.
	Bounds []float64 `json:"bounds,omitempty"`
	Counts []uint64  `json:"counts,omitempty"`
	Count  uint64    `json:"count,omitempty"`
}
