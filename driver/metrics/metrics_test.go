package metrics

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/plinth-csi/plinth/driver/pool"
	"github.com/plinth-csi/plinth/driver/volume"
)

// fixed is a pool that reads as given.
func fixed(r pool.Reading) pool.Gauge {
	return pool.Gauge{Pool: r.Pool.Name, Read: func(context.Context) pool.Reading { return r }}
}

func gauges(all ...pool.Gauge) func() []pool.Gauge { return func() []pool.Gauge { return all } }

func holding(id string, labels map[string]string, u *volume.Usage) pool.VolumeReading {
	return pool.VolumeReading{Volume: volume.Volume{Spec: volume.Spec{ID: volume.ID(id), Size: 1 << 20}, Pool: "fast", Labels: labels}, Usage: u}
}

// TestSeries: what is said of pools and volumes, and what is left out.
func TestSeries(t *testing.T) {
	for _, c := range []struct {
		name string
		of   pool.Reading
		want string
	}{
		{"a pool that serves", pool.Reading{Pool: volume.PoolStatus{Name: "fast", Backend: "btrfs", State: volume.PoolReady,
			Total: 100, Free: 60, Reserved: 30, Available: 50, Volumes: 2}}, `
			plinth_pool_available_bytes{pool="fast"} 50
			plinth_pool_capacity_bytes{pool="fast"} 100
			plinth_pool_free_bytes{pool="fast"} 60
			plinth_pool_info{backend="btrfs",pool="fast",shared="false"} 1
			plinth_pool_reserved_bytes{pool="fast"} 30
			plinth_pool_state{pool="fast",state="Ready"} 1
			plinth_pool_state{pool="fast",state="Unavailable"} 0
			plinth_pool_state{pool="fast",state="Unresponsive"} 0
			plinth_pool_volumes{pool="fast"} 2`},
		{"a pool that does not serve has no sizes", pool.Reading{Pool: volume.PoolStatus{Name: "fast", Shared: true, State: volume.PoolUnavailable, Reason: "NotMounted"}}, `
			plinth_pool_info{backend="",pool="fast",shared="true"} 1
			plinth_pool_problem{pool="fast",reason="NotMounted"} 1
			plinth_pool_state{pool="fast",state="Ready"} 0
			plinth_pool_state{pool="fast",state="Unavailable"} 1
			plinth_pool_state{pool="fast",state="Unresponsive"} 0`},
		{"a volume that an agent made", volumeOnly(holding("pvc-1", map[string]string{"namespace": "shop", "claim": "data", "class": "gold"},
			&volume.Usage{TotalBytes: 1 << 20, UsedBytes: 4096, TotalInodes: 64, UsedInodes: 3})), `
			plinth_volume_inodes{claim="data",claim_namespace="shop",pool="fast",volume="pvc-1"} 64
			plinth_volume_size_bytes{claim="data",claim_namespace="shop",pool="fast",volume="pvc-1"} 1.048576e+06
			plinth_volume_used_bytes{claim="data",claim_namespace="shop",pool="fast",volume="pvc-1"} 4096
			plinth_volume_used_inodes{claim="data",claim_namespace="shop",pool="fast",volume="pvc-1"} 3`},
		{"one that a sidecar asked for, on a filesystem that counts no inodes", volumeOnly(holding("pvc-1",
			map[string]string{"csi.storage.k8s.io/pvc/namespace": "shop", "csi.storage.k8s.io/pvc/name": "data"}, &volume.Usage{UsedBytes: 4096})), `
			plinth_volume_size_bytes{claim="data",claim_namespace="shop",pool="fast",volume="pvc-1"} 1.048576e+06
			plinth_volume_used_bytes{claim="data",claim_namespace="shop",pool="fast",volume="pvc-1"} 4096`},
		{"one whose use is not known, of a pod", volumeOnly(holding("csi-1", map[string]string{"csi.storage.k8s.io/pod.namespace": "shop"}, nil)), `
			plinth_volume_size_bytes{claim="",claim_namespace="shop",pool="fast",volume="csi-1"} 1.048576e+06`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := body(t, gauges(fixed(c.of)))
			for want := range strings.Lines(c.want) {
				if want = strings.TrimSpace(want); want != "" && !strings.Contains(got, want+"\n") {
					t.Errorf("lacks %s\n%s", want, got)
				}
			}
			wanted := strings.Count(c.want, "plinth_")
			if c.of.Pool.Backend == "" && len(c.of.Volumes) > 0 { // the pool of the volume is not what is looked at
				got = strings.ReplaceAll(got, "\nplinth_pool_", "\n#")
			}
			if n := strings.Count(got, "\nplinth_") - 1; n != wanted { // without build_info
				t.Errorf("%d series, want %d\n%s", n, wanted, got)
			}
		})
	}
}

func volumeOnly(v pool.VolumeReading) pool.Reading {
	return pool.Reading{Pool: volume.PoolStatus{Name: "fast", State: volume.PoolReady}, Volumes: []pool.VolumeReading{v}}
}

func body(t *testing.T, g func() []pool.Gauge) string {
	t.Helper()
	server := httptest.NewServer(Handler("v1", g))
	defer server.Close()
	resp, err := http.Get(server.URL + Path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v\n%s", resp.Status, err, text)
	}
	if want := `plinth_build_info{version="v1"} 1`; !strings.Contains(string(text), want) {
		t.Errorf("lacks %s", want)
	}
	return string(text)
}

// TestHangingPool: a pool that does not answer is said to be so, holds up no
// other, and is not asked again before it has answered.
func TestHangingPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, answer := make(chan struct{}, 10), make(chan struct{})
		slow := pool.Gauge{Pool: "slow", Read: func(context.Context) pool.Reading {
			asked <- struct{}{}
			<-answer
			return pool.Reading{Pool: volume.PoolStatus{Name: "slow", State: volume.PoolReady, Total: 7}}
		}}
		fast := fixed(pool.Reading{Pool: volume.PoolStatus{Name: "fast", State: volume.PoolReady, Total: 5}})
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(newCollector(gauges(slow, fast), patience))
		for range 2 {
			began := time.Now()
			compare(t, registry, `
				# HELP plinth_pool_capacity_bytes Size of a pool's filesystem, or of its disks together.
				# TYPE plinth_pool_capacity_bytes gauge
				plinth_pool_capacity_bytes{pool="fast"} 5
				# HELP plinth_pool_state 1 for the state that a pool is in, 0 for the others.
				# TYPE plinth_pool_state gauge
				plinth_pool_state{pool="fast",state="Ready"} 1
				plinth_pool_state{pool="fast",state="Unavailable"} 0
				plinth_pool_state{pool="fast",state="Unresponsive"} 0
				plinth_pool_state{pool="slow",state="Ready"} 0
				plinth_pool_state{pool="slow",state="Unavailable"} 0
				plinth_pool_state{pool="slow",state="Unresponsive"} 1
			`, "plinth_pool_capacity_bytes", "plinth_pool_state")
			if took := time.Since(began); took != patience {
				t.Errorf("it took %v, not %v", took, patience)
			}
		}
		if n := len(asked); n != 1 {
			t.Errorf("it was asked %d times", n)
		}
		close(answer)
		synctest.Wait()
		compare(t, registry, `
			# HELP plinth_pool_capacity_bytes Size of a pool's filesystem, or of its disks together.
			# TYPE plinth_pool_capacity_bytes gauge
			plinth_pool_capacity_bytes{pool="fast"} 5
			plinth_pool_capacity_bytes{pool="slow"} 7
		`, "plinth_pool_capacity_bytes")
	})
}

func compare(t *testing.T, g prometheus.Gatherer, want string, names ...string) {
	t.Helper()
	if err := testutil.GatherAndCompare(g, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}
