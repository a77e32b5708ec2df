// Package metrics shows what pools and volumes hold as Prometheus series. It
// reads when it is asked and at no other time. Each pool is read apart: one on
// a disk that hangs is reported as such after a while, whatever becomes of the
// reading, and there is never more than one reading of a pool under way.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/plinth-csi/plinth/driver/pool"
	"github.com/plinth-csi/plinth/driver/volume"
)

// Path is where the series are served.
const Path = "/metrics"

const (
	// patience is how long a pool may take to answer. Prometheus waits for ten
	// seconds unless it is told otherwise.
	patience = 4 * time.Second
	// requests at once; more are told to come later.
	requests = 4
)

// stateUnresponsive is the state of a pool that has not answered.
const stateUnresponsive = "Unresponsive"

// Handler serves the series of the pools that gauges lists, and of this
// process, on Path.
func Handler(version string, gauges func() []pool.Gauge) http.Handler {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "plinth_build_info", Help: "1, with the version that runs.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	registry.MustRegister(
		build, newCollector(gauges, patience),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET "+Path, promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: requests,
		DisableCompression:  true, // it would hold more memory than the network saves
		// Series that cannot be right (a volume with a record twice in a pool) do
		// not keep back the others.
		ErrorHandling: promhttp.ContinueOnError,
	}))
	return mux
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("plinth_"+name, help, labels, nil)
}

// The series, as docs/operations.md tells them.
type series struct {
	poolInfo, poolState, poolProblem                          *prometheus.Desc
	poolCapacity, poolFree, poolReserved, poolAvailable       *prometheus.Desc
	poolVolumes                                               *prometheus.Desc
	volumeSize, volumeUsed, volumeUsedInodes, volumeAllInodes *prometheus.Desc
}

func newSeries() series {
	ofVolume := []string{"volume", "pool", "claim_namespace", "claim"}
	return series{
		poolInfo:         describe("pool_info", "1, with what a pool is.", "pool", "backend", "shared"),
		poolState:        describe("pool_state", "1 for the state that a pool is in, 0 for the others.", "pool", "state"),
		poolProblem:      describe("pool_problem", "1, with the reason why a pool does not serve or part of it is not used.", "pool", "reason"),
		poolCapacity:     describe("pool_capacity_bytes", "Size of a pool's filesystem, or of its disks together.", "pool"),
		poolFree:         describe("pool_free_bytes", "Bytes of it that nothing holds.", "pool"),
		poolReserved:     describe("pool_reserved_bytes", "Bytes that volumes and snapshots have been promised.", "pool"),
		poolAvailable:    describe("pool_available_bytes", "Bytes that can still be promised to volumes.", "pool"),
		poolVolumes:      describe("pool_volumes", "Volumes in a pool, also those being made or removed.", "pool"),
		volumeSize:       describe("volume_size_bytes", "Size of a volume.", ofVolume...),
		volumeUsed:       describe("volume_used_bytes", "Bytes that a volume holds.", ofVolume...),
		volumeUsedInodes: describe("volume_used_inodes", "Files, directories and links that a volume holds.", ofVolume...),
		volumeAllInodes:  describe("volume_inodes", "Files, directories and links that a volume can hold.", ofVolume...),
	}
}

func (s series) all() []*prometheus.Desc {
	return []*prometheus.Desc{
		s.poolInfo, s.poolState, s.poolProblem, s.poolCapacity, s.poolFree, s.poolReserved, s.poolAvailable,
		s.poolVolumes, s.volumeSize, s.volumeUsed, s.volumeUsedInodes, s.volumeAllInodes,
	}
}

// sink sends values to whoever gathers them.
type sink chan<- prometheus.Metric

func (to sink) gauge(d *prometheus.Desc, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

// states tells which of the states a pool is in.
func (s series) states(to sink, name, is string) {
	for _, state := range []string{string(volume.PoolReady), string(volume.PoolUnavailable), stateUnresponsive} {
		value := 0.0
		if state == is {
			value = 1
		}
		to.gauge(s.poolState, value, name, state)
	}
}

func (s series) pool(to sink, p volume.PoolStatus) {
	shared := "false"
	if p.Shared {
		shared = "true"
	}
	to.gauge(s.poolInfo, 1, p.Name, p.Backend, shared)
	s.states(to, p.Name, string(p.State))
	if p.Reason != "" {
		to.gauge(s.poolProblem, 1, p.Name, p.Reason)
	}
	if p.State != volume.PoolReady {
		return // there are no sizes, and 0 would say that it is full
	}
	to.gauge(s.poolCapacity, float64(p.Total), p.Name)
	to.gauge(s.poolFree, float64(p.Free), p.Name)
	to.gauge(s.poolReserved, float64(p.Reserved), p.Name)
	to.gauge(s.poolAvailable, float64(p.Available), p.Name)
	to.gauge(s.poolVolumes, float64(p.Volumes), p.Name)
}

func (s series) volume(to sink, v pool.VolumeReading) {
	labels := []string{string(v.ID), v.Pool, label(v.Labels, "namespace", "pvc/namespace", "pod.namespace"), label(v.Labels, "claim", "pvc/name")}
	to.gauge(s.volumeSize, float64(v.Size), labels...)
	if v.Usage == nil {
		return
	}
	to.gauge(s.volumeUsed, float64(v.Usage.UsedBytes), labels...)
	if v.Usage.TotalInodes > 0 { // else nobody counts them
		to.gauge(s.volumeUsedInodes, float64(v.Usage.UsedInodes), labels...)
		to.gauge(s.volumeAllInodes, float64(v.Usage.TotalInodes), labels...)
	}
}

// label finds what a record says for people: an agent writes plain keys, a
// sidecar's and kubelet's have a prefix.
func label(of map[string]string, plain string, prefixed ...string) string {
	if value := of[plain]; value != "" {
		return value
	}
	for _, key := range prefixed {
		if value := of["csi.storage.k8s.io/"+key]; value != "" {
			return value
		}
	}
	return ""
}
